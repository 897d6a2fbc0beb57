"""zipf_with_scans: S3-FIFO against LRU over the real store, on a skewed trace that scans run through."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

from forebay import BlockStore
from perf import stores, workload
from perf.harness import Bar, Case, Facts, Outcome
from perf.hit_ratio import simulate
from perf.hit_ratio.replay import Items, replay
from perf.places import memory_folder

ROOM_BYTES = 1 << 30
DATASET = 7


def run(quick: bool) -> Outcome:
    """Replay the trace under both retentions at every cache size."""
    load = workload.load("skew", quick)
    trace = make_trace(load)
    items = Items([load["item_bytes"]] * (max(trace) + 1), load["seed"])
    rows: list[Facts] = []
    bars: list[Bar] = []
    for share in load["shares"]:
        row: Facts = {"quota_share": share}
        for retention in ("lru", "s3fifo"):
            row[retention] = _hit_ratio(share, retention, items, trace, load)
        bars.append(Bar(f"skewed at {share:.0%}: S3-FIFO / LRU", 1.0, [row["s3fifo"] / row["lru"]]))
        rows.append(row | _references(share, trace, load))
    return Outcome("hit ratio", {}, bars, load, {"hit_ratio": rows})


CASE = Case(
    "skew",
    "hit ratio on a skewed trace (Zipf 0.9 with scans mixed in)",
    "Belady's algorithm, which knows the future",
    run,
)


def make_trace(load: dict[str, Any]) -> list[int]:
    """Make the requests: Zipf ranks under shuffled numbers, and scans of numbers above, each used once."""
    source = random.Random(load["seed"])
    count = load["item_count"]
    weights = itertools.accumulate(rank ** -load["zipf_exponent"] for rank in range(1, count + 1))
    numbers = source.sample(range(count), count)
    popular = iter(source.choices(numbers, cum_weights=list(weights), k=load["request_count"]))
    once = itertools.count(count)
    trace: list[int] = []
    while run_of_requests := list(itertools.islice(popular, load["scan_every"])):
        trace += run_of_requests
        trace += itertools.islice(once, load["scan_length"])
    return trace


def _hit_ratio(share: float, retention: str, items: Items, trace: list[int], load: dict[str, Any]) -> float:
    warm = int(load["warm_share"] * len(trace))
    with memory_folder(ROOM_BYTES) as folder, _store(folder, share, load) as store:
        store.set_retention(DATASET, retention)
        replay(store, items, trace[:warm], DATASET, give_turns=True)
        return replay(store, items, trace[warm:], DATASET, give_turns=True).hit_ratio


def _store(folder: Path, share: float, load: dict[str, Any]) -> BlockStore:
    quota = int(share * load["item_count"] * load["item_bytes"])
    return stores.create(folder, quota, maintainer=False)


def _references(share: float, trace: list[int], load: dict[str, Any]) -> Facts:
    warm = int(load["warm_share"] * len(trace))
    found = simulate.reference_hits(int(share * load["item_count"]), trace)
    return {f"simulated {name}": simulate.ratio(hits, skip=warm) for name, hits in found.items()}
