"""member_stopped: one of 4 members gets SIGSTOP while a client reads on.

The reader passes over the objects in one order, without a pause. Healthy are the reads before the SIGSTOP.
What happens in the first 5 s after it is told, and has no bar; the next reads have. Each round has a group of
its own.
"""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

from perf import workload
from perf.group.epochs import Met, group_of_warm_members, percentile
from perf.harness import Case, Outcome, Samples, collector_off, compare
from perf.places import memory_folder

ROOM_BYTES = 2 << 30


def run(quick: bool) -> Outcome:
    """Stop a member drawn by the seed, round after round."""
    load = workload.load("member_stopped", quick)
    draw = random.Random(load["seed"])
    samples: Samples = {}
    for _ in range(load["rounds"]):
        with memory_folder(ROOM_BYTES) as folder, collector_off():
            for name, figure in _round(folder, load, draw).items():
                samples.setdefault(name, []).append(figure)
    bars = [
        compare(
            "one of 4 members stopped: p99.9 of reads after 5 s / healthy p99",
            samples,
            "after 5 s, p99.9",
            "healthy, p99",
            3,
            "at most",
        ),
        compare(
            "the same: p99.9 / healthy p99.9", samples, "after 5 s, p99.9", "healthy, p99.9", None, "at most"
        ),
    ]
    return Outcome("s", samples, bars, load)


CASE = Case(
    "member_stopped",
    "reads of a client while one of 4 members stands still",
    "who is known to be silent is not asked",
    run,
)


def _round(folder: Path, load: dict[str, Any], draw: random.Random) -> dict[str, float]:
    healthy, at_first, later = Met(), Met(), Met()
    with group_of_warm_members(folder, load) as (group, reader, _):
        reader.read(load["reads"], healthy)
        draw.choice(group).signal(signal.SIGSTOP)
        over_s = time.monotonic() + load["settled_after_s"]
        reader.read_until(lambda: time.monotonic() > over_s, at_first)
        reader.read(load["reads"], later)
    for met in (healthy, at_first, later):
        if met.failed or met.wrong:
            raise RuntimeError(f"{met.failed} reads failed and {met.wrong} were wrong")
    return {
        "healthy, p99": percentile(healthy.taken_s, 0.99),
        "healthy, p99.9": percentile(healthy.taken_s, 0.999),
        "first 5 s, slowest": max(at_first.taken_s),
        "after 5 s, p99": percentile(later.taken_s, 0.99),
        "after 5 s, p99.9": percentile(later.taken_s, 0.999),
        "after 5 s, slowest": max(later.taken_s),
    }
