"""Copies: who pushes what to whom, what is remembered of what was served, and what is handed over."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc
import pytest

from forebay.cache.replicated import Held
from forebay.peer.member import MemberState, View
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.replicas.hand_over import HandOver
from forebay.peer.replicas.pushing import Copy, Pace, ReplicaLimits, push
from forebay.peer.replicas.replicator import PASS_EVERY_S, RETRY_AFTER_S, Reach, Replicator
from forebay.peer.replicas.served import NotedServing, ServedBlocks
from forebay.peer.ring import Ring
from forebay.peer.service.reads import ref_of
from forebay.remote import BlockRef, RemoteObject
from tests.unit.peer._fake_links import BLOCK_BYTES, FakeTime, member, view

LIMITS = ReplicaLimits()


class Hit(bytearray):
    """What the store gives for a block."""

    def release(self) -> None:
        pass


class Host:
    """A member: what it has cached, and the calls that others make to it."""

    def __init__(self, number: int) -> None:
        self.id = member(number).id
        self.blocks: set[BlockRef] = set()
        self.replicas = 2
        self.admissions = 0
        self.has_room = True
        self.is_dead = False
        self.asked = 0

    # ---- what others call ----

    def Holds(self, request: pb.HoldsRequest, timeout: float) -> pb.HoldsReply:  # noqa: N802
        self._answer()
        return pb.HoldsReply(held=bytes(ref_of(block) in self.blocks for block in request.blocks))

    def Push(self, parts: Iterator[pb.PushPart], timeout: float) -> Iterator[pb.PushReply]:  # noqa: N802
        self._answer()
        for part in parts:
            if self.has_room:
                self.blocks.add(ref_of(part.block))
            yield pb.PushReply(admitted=self.has_room)

    def _answer(self) -> None:
        self.asked += 1
        if self.is_dead:
            raise grpc.RpcError("it does not answer")

    # ---- what it has itself ----

    def wanted(self) -> Mapping[tuple[str, str], int]:
        return {("d", ""): self.replicas} if self.replicas > 1 else {}

    def admitted(self) -> int:
        return self.admissions

    def of(self, dataset: str, path: str) -> int:
        return self.replicas

    def object_of(self, dataset: str, path: str, version: str) -> tuple[int, int] | None:
        return BLOCK_BYTES, 0

    def held(self) -> Iterator[Held]:
        for ref in sorted(self.blocks):
            yield Held("d", ref.path, ref.version, BLOCK_BYTES, 0, self.replicas, [ref.number])

    def hit(self, dataset: str, path: str, version: str, number: int) -> Hit | None:
        return Hit(BLOCK_BYTES) if BlockRef(dataset, path, version, number) in self.blocks else None


class Hosts:
    """The members of a group in this process."""

    def __init__(self, count: int = 3) -> None:
        self.all = [Host(number) for number in range(count)]
        self.by_id = {host.id: host for host in self.all}
        self.ring = Ring(view(count))
        self.time = FakeTime()
        self.replicators = {host.id: self._replicator(host) for host in self.all}

    def reach(self, host: Host) -> Reach:
        stubs: dict[str, Any] = {
            each.id: each for each in self.all if each is not host and each.id not in self.ring.down
        }
        return Reach(self.ring, host.id, stubs)

    def owners(self, path: str, count: int) -> list[Host]:
        return [self.by_id[each.id] for each in self.ring.owners("d", path, 0, count)]

    def holders(self, ref: BlockRef) -> set[str]:
        return {host.id for host in self.all if ref in host.blocks}

    def _replicator(self, host: Host) -> Replicator:
        return Replicator(host, host.hit, lambda: self.reach(host), BLOCK_BYTES, LIMITS, now_s=self.time)


def block(path: str = "o") -> BlockRef:
    return BlockRef("d", path, "v1", 0)


@pytest.fixture
def hosts() -> Hosts:
    return Hosts()


def test_the_best_in_rank_of_the_holders_pushes_to_the_others(hosts: Hosts) -> None:
    first, second, third = hosts.owners("o", 3)
    for each in hosts.all:
        each.replicas = 3
    first.blocks.add(block())
    second.blocks.add(block())
    hosts.replicators[second.id].look()
    assert hosts.holders(block()) == {first.id, second.id}
    hosts.replicators[first.id].look()
    assert hosts.holders(block()) == {first.id, second.id, third.id}
    assert hosts.replicators[first.id].status()["blocks_pushed"] == 1
    assert hosts.replicators[first.id].status()["bytes_pushed"] == BLOCK_BYTES


def test_a_holder_that_is_to_hold_nothing_gives_to_those_who_are(hosts: Hosts) -> None:
    first, second, third = hosts.owners("o", 3)
    third.blocks.add(block())
    hosts.replicators[third.id].look()
    assert hosts.holders(block()) == {first.id, second.id, third.id}


def test_one_that_is_down_is_waited_for_and_one_that_is_gone_replaced(hosts: Hosts) -> None:
    first, second, third = hosts.owners("o", 3)
    first.blocks.add(block())
    number = hosts.all.index(second)
    hosts.ring = Ring(view(3, epoch=2, down=[number]))
    hosts.replicators[first.id].look()
    assert hosts.holders(block()) == {first.id}
    members = [each for each in view(3).members if each.id != second.id]
    hosts.ring = Ring(View.of(3, members))
    hosts.replicators[first.id].look()
    assert hosts.holders(block()) == {first.id, third.id}


def test_a_pass_begins_when_something_may_have_changed(hosts: Hosts) -> None:
    first = hosts.owners("o", 1)[0]
    replicator = hosts.replicators[first.id]
    assert replicator.look()
    assert not replicator.look()
    first.blocks.add(block())
    first.admissions += 1
    assert replicator.look()
    assert len(hosts.holders(block())) == 2
    assert not replicator.look()
    first.replicas = 3
    assert replicator.look()
    assert len(hosts.holders(block())) == 3
    hosts.time.advance(PASS_EVERY_S)
    assert replicator.look()
    first.replicas = 1
    assert not replicator.look()


def test_a_member_that_does_not_answer_is_asked_again(hosts: Hosts) -> None:
    first, second = hosts.owners("o", 2)
    first.blocks.add(block())
    second.is_dead = True
    replicator = hosts.replicators[first.id]
    assert replicator.look()
    assert replicator.status()["errors"] == 1
    second.is_dead = False
    assert not replicator.look()
    hosts.time.advance(RETRY_AFTER_S)
    assert replicator.look()
    assert block() in second.blocks
    assert not replicator.look()


def test_a_member_without_room_is_left_alone_for_a_while(hosts: Hosts) -> None:
    first, second = hosts.owners("o", 2)
    first.blocks.add(block())
    second.has_room = False
    replicator = hosts.replicators[first.id]
    replicator.look()
    asked = second.asked
    first.admissions += 1
    replicator.look()
    # Asked what it has, and given nothing.
    assert second.asked == asked + 1
    assert replicator.status()["blocks_refused"] == 1
    assert replicator.status()["blocks_missing"] == 1
    second.has_room = True
    hosts.time.advance(PASS_EVERY_S)
    replicator.look()
    assert block() in second.blocks


def test_nothing_passes_once_it_is_stopping() -> None:
    stopping = threading.Event()
    pace = Pace(1, stopping)
    assert pace.wait(1_000_000)
    stopping.set()
    host = Host(0)
    copies = [Copy(block(), BLOCK_BYTES, 0)]
    assert list(push(host, copies, lambda *ref: Hit(BLOCK_BYTES), pace)) == []
    assert host.asked == 0


def test_what_is_cached_no_more_is_left_out() -> None:
    source, target = Host(0), Host(1)
    source.blocks.add(block("b"))
    copies = [Copy(block(name), BLOCK_BYTES, 0) for name in "abc"]
    (pushed,) = push(target, copies, source.hit, Pace(1 << 30, threading.Event()))
    assert pushed == (1, BLOCK_BYTES, 0)
    assert target.blocks == {block("b")}


def test_the_hottest_blocks_are_remembered_in_bounded_memory() -> None:
    served = ServedBlocks(blocks_max=8)
    for number in range(100):
        served.note("d", "hot", "v1", 0)
        served.note("d", "cold", "v1", number)
        assert len(served) <= 8
    hottest = served.hottest()
    assert hottest[0] == BlockRef("d", "hot", "v1", 0)
    assert BlockRef("d", "cold", "v1", 99) in hottest


class Serving:
    """Has one block cached, and an object of three."""

    def hits(self, blocks: Sequence[tuple[str, str, str, int]]) -> Iterator[Hit | None]:
        for _, _, _, number in blocks:
            yield Hit(4) if number == 0 else None

    def bring(self, dataset: str, path: str, version: str, number: int, on_piece: Any) -> None:
        on_piece(memoryview(b"x"))

    def touch(self, dataset: str, path: str, offset: int, length: int) -> tuple[RemoteObject, memoryview]:
        return RemoteObject(path, 12, 0, "v1", False, 0), memoryview(bytes(length))

    def stat(self, dataset: str, path: str) -> RemoteObject:
        raise AssertionError

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]]:
        raise AssertionError


def test_every_block_that_is_given_is_noted() -> None:
    served = ServedBlocks()
    noted = NotedServing(Serving(), served, 4)
    assert len(list(noted.hits([("d", "o", "v1", 0), ("d", "o", "v1", 9)]))) == 2
    noted.bring("d", "o", "v1", 5, lambda piece: None)
    noted.touch("d", "t", 4, 5)
    noted.touch("d", "u", 4, 0)
    assert {(ref.path, ref.number) for ref in served.hottest()} == {("o", 0), ("o", 5), ("t", 1), ("t", 2)}


def leaving(hosts: Hosts, host: Host, limits: ReplicaLimits = LIMITS) -> HandOver:
    hosts.ring = Ring(
        View.of(
            2,
            [
                member(number, MemberState.LEAVING if each is host else MemberState.UP)
                for number, each in enumerate(hosts.all)
            ],
        )
    )
    return HandOver(host, host.hit, hosts.reach(host), BLOCK_BYTES, limits, hosts.time)


def served_by(host: Host, *names: str) -> ServedBlocks:
    """Have a host serve blocks, the first most often."""
    served = ServedBlocks()
    host.replicas = 1
    for count, name in enumerate(reversed(names), 1):
        host.blocks.add(block(name))
        for _ in range(count):
            served.note(*block(name))
    return served


def test_a_member_that_leaves_hands_over_to_the_next_owners(hosts: Hosts) -> None:
    host = hosts.all[0]
    names = [str(number) for number in range(20)]
    served = served_by(host, *names)
    there = hosts.all[1]
    hand_over = leaving(hosts, host)
    assert hosts.owners("0", 1)[0] is not host
    already = next(name for name in names if hosts.owners(name, 1)[0] is there)
    there.blocks.add(block(already))
    assert hand_over.run(served).blocks == 19
    for name in names:
        assert block(name) in hosts.owners(name, 1)[0].blocks


def test_what_is_handed_over_is_bounded_in_bytes_the_hottest_first(hosts: Hosts) -> None:
    host = hosts.all[0]
    served = served_by(host, "a", "b", "c")
    hand_over = leaving(hosts, host, ReplicaLimits(hand_over_bytes=1))
    assert hand_over.run(served).blocks == 1
    assert block("a") in hosts.owners("a", 1)[0].blocks


def test_what_is_handed_over_is_bounded_in_time(hosts: Hosts) -> None:
    host = hosts.all[0]
    served = served_by(host, "a")
    hand_over = leaving(hosts, host)
    hosts.time.advance(LIMITS.hand_over_s)
    assert hand_over.run(served) == (0, 0, 0)


def test_one_that_does_not_answer_costs_the_others_nothing(hosts: Hosts) -> None:
    host = hosts.all[0]
    names = [str(number) for number in range(20)]
    served = served_by(host, *names)
    hosts.all[1].is_dead = True
    assert leaving(hosts, host).run(served).blocks > 0
    assert hosts.all[1].asked == 1
