"""placement: a look-up of who owns a run among 100 peers, and a change of the view among 1,000 members.

Nothing is sent. A change is all that a member does when a peer's answer shows one: reading the message,
merging the view, making the new one and its ring, and the first look-up in it.
"""

from __future__ import annotations

import random
import time
import uuid
from functools import partial
from typing import Any

from forebay.clock import BootClock
from forebay.peer.member import Member, View
from forebay.peer.membership import Answer, Membership
from forebay.peer.proto import forebay_pb2 as messages
from forebay.peer.ring import RUN_BYTES, Ring
from perf import memory, workload
from perf.fresh import in_fresh_process
from perf.harness import Case, Contender, Outcome, interleave, within_limit

LOOK_UP_LIMIT_NS = 2_000
CHANGE_LIMIT_S = 0.05
MEMORY_LIMIT_BYTES = 20 << 20
GROUP = "perf"


def run(quick: bool) -> Outcome:
    """Look up owners and change views, round after round; then measure memory in fresh processes."""
    load = workload.load("placement", quick)
    equal = Ring(View.of(1, _members(load, load["peer_count"], weights=[1.0])))
    unequal = Ring(View.of(1, _members(load, load["peer_count"], weights=[1.0, 2.0, 4.0])))
    names = [f"train/{number // 1000:04}/{number:08}.tar" for number in range(load["lookup_count"])]
    group = Group(load)
    contenders = [
        Contender("owner, equal weights", partial(_look_up_ns, equal, names, 1)),
        Contender("owner, unequal weights", partial(_look_up_ns, unequal, names, 1)),
        Contender("copies, unequal weights", partial(_look_up_ns, unequal, names, load["copies"])),
        Contender("view change", partial(group.change_s, load["change_count"])),
    ]
    samples = interleave(contenders, load["rounds"])
    samples["private bytes"] = [
        float(in_fresh_process(_added_bytes, load)) for _ in range(load["memory_rounds"])
    ]
    bars = [
        *(
            within_limit(
                f"look-up at {load['peer_count']} peers, {name} / 2 µs", samples[name], LOOK_UP_LIMIT_NS
            )
            for name in ("owner, equal weights", "owner, unequal weights", "copies, unequal weights")
        ),
        within_limit(
            f"view change at {load['member_count']} members / 50 ms", samples["view change"], CHANGE_LIMIT_S
        ),
        within_limit(
            f"memory of {load['member_count']} members / 20 MiB", samples["private bytes"], MEMORY_LIMIT_BYTES
        ),
    ]
    return Outcome("ns, s or bytes", samples, bars, load)


CASE = Case(
    "placement",
    "who owns a run, at 100 peers; a change of the view, at 1,000 members",
    "three hashes of short texts and one for each peer; reading a message",
    run,
)


class Group:
    """A member of a large group, and a peer that tells it what has changed."""

    def __init__(self, load: dict[str, Any]) -> None:
        self._members = _members(load, load["member_count"], weights=[1.0, 2.0])
        self._random = random.Random(load["seed"])
        self.membership = Membership(self._members[0], GROUP, [], clock=BootClock())
        self._epoch = 1
        for member in self._members[1:]:
            self.membership.answered(member.address, Answer(GROUP, member, View(1, (member,))))

    def change_s(self, count: int) -> float:
        """Return the seconds that a change takes: a member in the peer's view has started anew."""
        taken = 0.0
        for _ in range(count):
            number = self._random.randrange(2, len(self._members))
            old = self._members[number]
            new = Member(
                old.id, old.address, old.data_port, old.weight, old.zone, incarnation=old.incarnation + 1
            )
            self._members[number] = new
            self._epoch = self.membership.view.epoch + 1
            message = View.of(self._epoch, self._members).to_message().SerializeToString()
            started = time.perf_counter()
            view = View.from_message(messages.View.FromString(message))
            self.membership.answered(self._members[1].address, Answer(GROUP, self._members[1], view))
            self.membership.ring.owners("data", "path", 0)
            taken += time.perf_counter() - started
            if new not in self.membership.view.members or self.membership.view.epoch <= self._epoch:
                raise RuntimeError("a change was not taken over")
        return taken / count


def _members(load: dict[str, Any], count: int, weights: list[float]) -> list[Member]:
    source = random.Random(load["seed"])
    return [
        Member(
            str(uuid.UUID(bytes=source.randbytes(16))),
            f"node-{number}.cluster:7070",
            data_port=7071,
            weight=weights[number % len(weights)],
            zone=f"zone-{number % load['zone_count']}",
            incarnation=1,
        )
        for number in range(count)
    ]


def _look_up_ns(ring: Ring, names: list[str], count: int) -> float:
    started = time.perf_counter_ns()
    for name in names:
        ring.owners("data", name, RUN_BYTES, count)
    return (time.perf_counter_ns() - started) / len(names)


def _added_bytes(load: dict[str, Any]) -> int:
    """Return what a group and changes of it add to the private memory of this process, at their peak."""
    memory.give_back_free_heap()
    before = memory.private_bytes()
    with memory.watching_peak() as peak:
        group = Group(load)
        group.change_s(load["change_count"])
        peak[0] = max(peak[0], memory.private_bytes())
    return peak[0] - before
