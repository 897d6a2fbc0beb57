"""member_killed: one of 4 members gets SIGKILL in an epoch, with one copy of each block, or with two.

Each round has a group of its own. The reader passes over the objects in one order: half an epoch, the
SIGKILL while a read may be under way, then one epoch, and one more. With one copy those behind the dead
member in rank bring in the first of them what was its own, and the hit ratio, what the S3 server was not
asked for, is held to its bar in the second; with two copies, in the first.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import forebay
from perf import workload
from perf.group.epochs import Met, group_of_warm_members
from perf.harness import Bar, Case, Outcome, Samples, within_limit
from perf.places import memory_folder
from perf.system.bucket import DATASET

ROOM_BYTES = 2 << 30
PEER_TIMEOUT_S = 2.0  # what a client has unless it is told otherwise
OVER_DEADLINE_S = 1.0
COPIES_WITHIN_S = 60.0
_FIGURES = ("failed", "wrong", "slowest, s", "hit ratio, first", "hit ratio, second")


def run(quick: bool) -> Outcome:
    """Kill a member drawn by the seed, round after round."""
    load = workload.load("member_killed", quick)
    draw = random.Random(load["seed"])
    samples: Samples = {}
    for _ in range(load["rounds"]):
        for copies in (1, 2):
            with memory_folder(ROOM_BYTES) as folder:
                for name, figure in _round(folder, load, draw, copies).items():
                    samples.setdefault(f"{name}, {copies} copies", []).append(figure)
    limit_s = PEER_TIMEOUT_S + OVER_DEADLINE_S
    one, two = ({name: samples[f"{name}, {copies} copies"] for name in _FIGURES} for copies in (1, 2))
    bars = [
        Bar("one of 4 members killed: failed reads", 0, one["failed"] + two["failed"], "at most"),
        Bar("one of 4 members killed: wrong bytes", 0, one["wrong"] + two["wrong"], "at most"),
        within_limit(
            "one of 4 members killed: slowest read / (deadline + 1 s)",
            one["slowest, s"] + two["slowest, s"],
            limit_s,
        ),
        Bar("one of 4 members killed: hit ratio an epoch later", 0.95, one["hit ratio, second"]),
        Bar("the same: hit ratio of the epoch between", None, one["hit ratio, first"]),
        Bar("the same with two copies: hit ratio at once", 0.95, two["hit ratio, first"]),
    ]
    return Outcome("reads, s or share", samples, bars, load)


CASE = Case(
    "member_killed",
    "reads of a client while one of 4 members is killed in an epoch",
    "what the dead member had, once from the store",
    run,
)


def _round(folder: Path, load: dict[str, Any], draw: random.Random, copies: int) -> dict[str, float]:
    with group_of_warm_members(folder, load) as (group, reader, proxy):
        if copies > 1:
            _copy(reader.cache, copies)
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
        if copies == 1 and ratios[0] == 1:
            raise RuntimeError("the member that was killed had nothing")
    figures = (float(met.failed), float(met.wrong), max(met.taken_s), *ratios)
    return dict(zip(_FIGURES, figures, strict=True))


def _copy(cache: forebay.Cache, copies: int) -> None:
    """Ask for copies, and wait until they are there. Raises: TimeoutError."""
    cache.replicas(DATASET, copies)
    give_up_s = time.monotonic() + COPIES_WITHIN_S
    while sum(cache.locate(DATASET).values()) < copies:
        if time.monotonic() > give_up_s:
            raise TimeoutError(f"{cache.locate(DATASET)} instead of {copies} copies")
        time.sleep(0.2)
