"""epoch_reads: hit ratio against the share of the data set that is resident, over the real store.

Every item is read once an epoch in a fresh random order. With retention `epoch` what was admitted first
stays, so every resident byte is a hit: the best that any policy reaches without knowing the future. LRU and
S3-FIFO run beside it in the same store, and all of them with FIFO and Belady in simulation.
"""

from __future__ import annotations

import random
import statistics
from pathlib import Path
from typing import Any

from forebay import BlockStore
from perf import stores, workload
from perf.harness import Bar, Case, Facts, Outcome
from perf.hit_ratio import simulate
from perf.hit_ratio.replay import Items, Tally, replay, resident_bytes
from perf.places import memory_folder

ROOM_BYTES = 1 << 30
DATASET = 7
SEGMENTS_MIN = 200
TOLERANCE = 0.01


def run(quick: bool) -> Outcome:
    """Read the epochs at every share of the data set, under every retention."""
    load = workload.load("epoch", quick)
    items = make_items(load)
    orders = make_orders(items, load)
    bars: list[Bar] = []
    rows: list[Facts] = []
    for share in load["shares"]:
        row, share_bars = _at_share(share, items, orders)
        rows.append(row | _references(share, load))
        bars += share_bars
    return Outcome("hit ratio", {}, bars, load, {"hit_ratio": rows})


CASE = Case(
    "epoch",
    "hit ratio of epoch reads, epochs 2 on, data set of 200 segments or more",
    "the resident share of the data set: no policy without knowledge of the future does better",
    run,
)


def make_items(load: dict[str, Any]) -> Items:
    """Make items of drawn sizes."""
    source = random.Random(load["seed"])
    sizes = [
        source.randint(load["item_bytes_min"], load["item_bytes_max"]) for _ in range(load["item_count"])
    ]
    return Items(sizes, load["seed"])


def make_orders(items: Items, load: dict[str, Any]) -> list[list[int]]:
    """Make an order of all items for each epoch."""
    source = random.Random(load["seed"] + 1)
    numbers = range(len(items.sizes))
    return [source.sample(numbers, len(numbers)) for _ in range(load["epochs"])]


def _at_share(share: float, items: Items, orders: list[list[int]]) -> tuple[Facts, list[Bar]]:
    row, bars = _kept(share, items, orders)
    for retention in ("lru", "s3fifo"):
        with memory_folder(ROOM_BYTES) as folder, _store(folder, share, items, retention) as store:
            tallies = [replay(store, items, order, DATASET, give_turns=True) for order in orders]
            row[retention] = _mean(tallies)
    return row, bars


def _kept(share: float, items: Items, orders: list[list[int]]) -> tuple[Facts, list[Bar]]:
    """Read the epochs with retention `epoch`; the store's own figures have to be those of the reader."""
    with memory_folder(ROOM_BYTES) as folder, _store(folder, share, items, "epoch") as store:
        _require_segments(store, items)
        tallies = [replay(store, items, order, DATASET) for order in orders]
        resident = resident_bytes(store, items)
        _require_equal("resident bytes", stores.committed_bytes(store), resident)
        admitted = sum(tally.admitted_bytes for tally in tallies)
        _require_equal("written bytes", stores.written_bytes(store), admitted)
    resident_share = resident / items.total_bytes
    row: Facts = {"quota_share": share, "resident": resident_share, "epoch": _mean(tallies)}
    return row, _bars(share, resident_share, tallies, items)


def _mean(tallies: list[Tally]) -> float:
    """The hit ratio of the epochs from the second on."""
    return statistics.mean(tally.hit_ratio for tally in tallies[1:])


def _require_equal(what: str, told: int, counted: int) -> None:
    if told != counted:
        raise RuntimeError(f"{what}: the store says {told}, the reader counted {counted}")


def _store(folder: Path, share: float, items: Items, retention: str) -> BlockStore:
    quota = int(share * items.total_bytes)
    store = stores.create(folder, quota, maintainer=retention == "epoch")
    store.set_retention(DATASET, retention)
    return store


def _require_segments(store: BlockStore, items: Items) -> None:
    count = items.total_bytes / stores.segment_bytes(store)
    if count < SEGMENTS_MIN:
        raise RuntimeError(f"the data set is {count:.0f} segments, not {SEGMENTS_MIN}: too coarse to tell")


def _bars(share: float, resident: float, tallies: list[Tally], items: Items) -> list[Bar]:
    differences = [abs(tally.hit_ratio - resident) / TOLERANCE for tally in tallies[1:]]
    written = [tally.admitted_bytes / items.total_bytes for tally in tallies[1:]]
    return [
        Bar(f"epoch at {share:.0%}: |hit ratio - resident share| / {TOLERANCE}", 1.0, differences, "at most"),
        Bar(f"epoch at {share:.0%}: bytes written after epoch 1 / data set", 0.0, written, "at most"),
    ]


def _references(share: float, load: dict[str, Any]) -> Facts:
    count = load["reference_items"]
    source = random.Random(load["seed"])
    trace = [item for _ in range(load["epochs"]) for item in source.sample(range(count), count)]
    found = simulate.reference_hits(int(share * count), trace)
    return {f"simulated {name}": simulate.ratio(hits, skip=count) for name, hits in found.items()}
