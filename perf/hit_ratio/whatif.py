"""whatif: hit ratios that `forebay.whatif` estimates from a trace against those of the real store.

Two traces are recorded: the epochs of `epoch` and the skewed requests of `skew`. Each is played for five
sizes and three retentions, and read through a store of that size, which is given its turns to evict in the
reader's own thread. A third one is only played, for the time that a million reads take.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from forebay.cache import RETENTIONS, Trace
from forebay.cache.record.traces import Traces
from forebay.whatif import Estimate, what_if
from perf import stores, workload
from perf.harness import Bar, Case, Facts, Outcome, within_limit
from perf.hit_ratio import epoch, skew
from perf.hit_ratio.replay import Items, replay
from perf.places import memory_folder

ROOM_BYTES = 2 << 30
DATASET = 7
TRACE_BYTES_MAX = 1 << 30
TOLERANCE = 0.02


def run(quick: bool) -> Outcome:
    """Play both traces and read them through stores."""
    load = workload.load("whatif", quick)
    bars: list[Bar] = []
    facts: Facts = {}
    for name, items, numbers in _traces(quick):
        rows = facts[name] = _compare(items, numbers, load)
        for retention in RETENTIONS:
            # The worst of all sizes: a median would hide one.
            worst = max(abs(row[retention] - row[f"{retention}, store"]) for row in rows)
            bars.append(
                Bar(
                    f"what-if, {name}, {retention}: worst error / {TOLERANCE}",
                    1.0,
                    [worst / TOLERANCE],
                    "at most",
                )
            )
    seconds = _seconds_to_play(load)
    bars.append(
        within_limit(f"what-if, 15 plays / {load['time_limit_s']} s", [seconds], load["time_limit_s"])
    )
    return Outcome("hit ratio", {}, bars, load, facts | {"seconds_to_play": seconds})


CASE = Case(
    "whatif",
    "hit ratios estimated from a trace, and measured with the real store",
    "none: the estimate may be exact",
    run,
)


def _traces(quick: bool) -> list[tuple[str, Items, list[int]]]:
    epochs, requests = workload.load("epoch", quick), workload.load("skew", quick)
    items = epoch.make_items(epochs)
    numbers = [number for order in epoch.make_orders(items, epochs) for number in order]
    skewed = skew.make_trace(requests)
    same = Items([requests["item_bytes"]] * (max(skewed) + 1), requests["seed"])
    return [("epochs", items, numbers), ("skewed", same, skewed)]


def _compare(items: Items, numbers: list[int], load: dict[str, Any]) -> list[Facts]:
    """Return what is estimated and what the store measures, by size."""
    distinct_bytes = sum(items.sizes[number] for number in set(numbers))
    sizes = [int(share * distinct_bytes) for share in load["shares"]]
    with memory_folder(ROOM_BYTES) as folder:
        found = what_if(_record(folder, items.sizes, numbers, load["block_bytes"]), sizes)
    rows: list[Facts] = [{"quota_share": size / distinct_bytes} for size in sizes]
    for retention in RETENTIONS:
        for row, estimate in zip(rows, found.of(retention), strict=True):
            row[retention] = estimate.hit_ratio
            row[f"{retention}, store"] = _measured(estimate, items, numbers, load)
    return rows


def _measured(estimate: Estimate, items: Items, numbers: list[int], load: dict[str, Any]) -> float:
    with (
        memory_folder(ROOM_BYTES) as folder,
        stores.create(folder, estimate.size_bytes, load["block_bytes"], maintainer=False) as store,
    ):
        store.set_retention(DATASET, estimate.retention)
        return replay(store, items, numbers, DATASET, give_turns=True).hit_ratio


def _record(folder: Path, sizes: Sequence[int], numbers: Iterable[int], block_bytes: int) -> Trace:
    traces = Traces(folder / "traces", block_bytes)
    with traces.begin("trace", TRACE_BYTES_MAX):
        recorder = traces.join("trace")
        if recorder is None:
            raise RuntimeError("a trace that was begun cannot be joined")
        for number in numbers:
            recorder.note(f"bench/{number:08}", 0, sizes[number], sizes[number])
        recorder.close()
    return traces.find("trace")


def _seconds_to_play(load: dict[str, Any]) -> float:
    count, draw = load["timed_items"], random.Random(load["seed"])
    epochs = load["timed_reads"] // count
    numbers = (number for _ in range(epochs) for number in draw.sample(range(count), count))
    with memory_folder(ROOM_BYTES) as folder:
        trace = _record(folder, [load["timed_item_bytes"]] * count, numbers, 4 << 20)
        started = time.perf_counter()
        what_if(trace, ["10%", "20%", "40%", "60%", "80%"])
        return time.perf_counter() - started
