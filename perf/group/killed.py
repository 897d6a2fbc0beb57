"""member_killed: one of 4 members gets SIGKILL in the middle of an epoch, with one copy of each block.

Each round has a group of its own. The reader passes over the objects in one order: half an epoch, the
SIGKILL while a read may be under way, then one epoch in which those behind the dead member in rank bring
what was its own, and one more. The hit ratio is that of the last: what the S3 server was not asked for.
"""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from typing import Any

from perf import workload
from perf.group.epochs import Met, group_of_warm_members
from perf.harness import Bar, Case, Outcome, Samples, within_limit
from perf.places import memory_folder

ROOM_BYTES = 2 << 30
PEER_TIMEOUT_S = 2.0  # what a client has unless it is told otherwise
OVER_DEADLINE_S = 1.0


def run(quick: bool) -> Outcome:
    """Kill a member drawn by the seed, round after round."""
    load = workload.load("member_killed", quick)
    draw = random.Random(load["seed"])
    samples: Samples = {}
    for _ in range(load["rounds"]):
        with memory_folder(ROOM_BYTES) as folder:
            for name, figure in _round(folder, load, draw).items():
                samples.setdefault(name, []).append(figure)
    limit_s = PEER_TIMEOUT_S + OVER_DEADLINE_S
    bars = [
        Bar("one of 4 members killed: failed reads", 0, samples["failed reads"], "at most"),
        Bar("one of 4 members killed: wrong bytes", 0, samples["wrong reads"], "at most"),
        within_limit(
            "one of 4 members killed: slowest read / (deadline + 1 s)", samples["slowest read, s"], limit_s
        ),
        Bar("one of 4 members killed: hit ratio an epoch later", 0.95, samples["hit ratio, after"]),
        Bar("the same: hit ratio of the epoch between", None, samples["hit ratio, between"]),
    ]
    return Outcome("reads, s or share", samples, bars, load)


CASE = Case(
    "member_killed",
    "reads of a client while one of 4 members is killed in an epoch",
    "what the dead member had, once from the store",
    run,
)


def _round(folder: Path, load: dict[str, Any], draw: random.Random) -> dict[str, float]:
    with group_of_warm_members(folder, load) as (group, reader, proxy):
        met, count = Met(), reader.object_count
        victim = draw.choice(group)
        reader.read(count // 2, met)
        killer = threading.Thread(target=victim.signal, args=(signal.SIGKILL,))
        killer.start()
        reader.read_until(lambda: not killer.is_alive(), met)
        ratios = []
        for _ in range(2):
            proxy.stats(reset=True)
            reader.read(count, met)
            gets = proxy.stats()["requests_by_method"].get("GET", 0)
            ratios.append(1 - gets / count)
        if ratios[0] == 1:
            raise RuntimeError("the member that was killed had nothing")
    return {
        "failed reads": float(met.failed),
        "wrong reads": float(met.wrong),
        "slowest read, s": max(met.taken_s),
        "hit ratio, between": ratios[0],
        "hit ratio, after": ratios[1],
    }
