"""hits_during_eviction: the slow end of batches of 100 hits, with and without eviction on the other core.

One process only hits (so it starts no maintainer) on core 0. Another, on core 1, filled the store and is its
maintainer; told to churn, it puts small records of an `lru` dataset, so that whole segments of them are
evicted all the time. The hot keys belong to a dataset of their own that nothing evicts.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from forebay import BlockStore
from perf import stores, workload
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.places import memory_folder

ROOM_BYTES = 2 << 30
HOT, CHURN = 0, 1
READY_TIMEOUT_S = 60.0
PERCENTILE = 99


def run(quick: bool) -> Outcome:
    """Measure the 99th percentile of batches in alternating rounds, quiet and evicting."""
    load = workload.load("maintainer", quick)
    longest: dict[str, float] = {"quiet": 0.0, "evicting": 0.0}
    with memory_folder(ROOM_BYTES) as folder, _churner(folder, load) as churn, BlockStore(folder) as store:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        evicted_before = stores.counter(store, "evicted")
        order = workload.shuffled(workload.keys(load["hot_count"], load["seed"]), load["seed"] + 1)
        batches = partial(_batches, store, itertools.cycle(order), load)
        contenders = [
            Contender("quiet", partial(_slow_end, batches, longest, "quiet")),
            Contender("evicting", partial(_while, churn, partial(_slow_end, batches, longest, "evicting"))),
        ]
        samples = interleave(contenders, load["rounds"])
        evicted = stores.counter(store, "evicted") - evicted_before
    if not evicted:
        raise RuntimeError("nothing was evicted: the rounds do not show what they are for")
    bars = [compare("p99 of 100 hits, evicting / quiet", samples, "evicting", "quiet", 1.5, "at most")]
    facts = {
        "longest_stall_quiet_us": longest["quiet"] * 1e6,
        "longest_stall_evicting_us": longest["evicting"] * 1e6,
        "evicted_blocks": evicted,
    }
    return Outcome("s, p99 of 100 hits", samples, bars, load, facts)


CASE = Case(
    "maintainer",
    "hits while the maintainer evicts on the other core",
    "no lock is shared: what is left is cache lines of changed index pages, and memory bandwidth",
    run,
)


def _batches(store: BlockStore, keys: Iterator[bytes], load: dict[str, Any]) -> list[float]:
    """Time batches of hits, in seconds each."""
    get, clock = store.get, time.perf_counter
    taken = []
    for _ in range(load["round_batches"]):
        batch = list(itertools.islice(keys, load["batch_hits"]))
        started = clock()
        for key in batch:
            get(key).release()  # type: ignore[union-attr]  # hot keys are never evicted
        taken.append(clock() - started)
    return taken


def _slow_end(batches: Callable[[], list[float]], longest: dict[str, float], state: str) -> float:
    taken = batches()
    longest[state] = max(longest[state], *taken)
    return statistics.quantiles(taken, n=100)[PERCENTILE - 1]


def _while(churn: Connection, measure: Callable[[], float]) -> float:
    """Measure while the other process churns; it has begun before and has ended afterwards."""
    _tell(churn, "churn")
    figure = measure()
    _tell(churn, "rest")
    return figure


def _tell(churn: Connection, order: str) -> None:
    churn.send(order)
    if not churn.poll(READY_TIMEOUT_S):
        raise TimeoutError(f"the churning process did not answer {order!r} in time")
    churn.recv()


@contextmanager
def _churner(folder: Path, load: dict[str, Any]) -> Iterator[Connection]:
    """Start the other process; gives the pipe to it once the store is filled."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_churn, args=(folder, load, theirs))
    process.start()
    theirs.close()
    try:
        _tell(ours, "fill")
        yield ours
    finally:
        if process.is_alive():
            ours.send("end")
        process.join()
        ours.close()


def _churn(folder: Path, load: dict[str, Any], pipe: Connection) -> None:
    """Fill the store and be its maintainer; then put new records between `churn` and `rest`."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    numbers = itertools.count()
    record = bytes(load["churn_bytes"])
    with stores.create(folder, load["quota_bytes"]) as store:
        store.set_retention(CHURN, "lru")
        while (order := pipe.recv()) != "end":
            if order == "fill":
                for key in workload.keys(load["hot_count"], load["seed"]):
                    store.put(key, bytes(load["hot_bytes"]), dataset=HOT)
                _put_until(store, record, numbers, lambda: stores.counter(store, "evicted") > 0)
            pipe.send(order)
            if order == "churn":
                _put_until(store, record, numbers, pipe.poll)


def _put_until(store: BlockStore, record: bytes, numbers: Iterator[int], over: Callable[[], bool]) -> None:
    while not over():
        for number in itertools.islice(numbers, 1_000):
            store.put(number.to_bytes(8, "little"), record, dataset=CHURN)
