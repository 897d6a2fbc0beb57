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
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from forebay import BlockStore
from perf import stores, workload
from perf.errand import END, errand, tell
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.places import memory_folder

ROOM_BYTES = 2 << 30
HOT, CHURN = 0, 1
PERCENTILE = 99


def run(quick: bool) -> Outcome:
    """Measure the 99th percentile of batches in alternating rounds, quiet and evicting."""
    load = workload.load("maintainer", quick)
    with (
        memory_folder(ROOM_BYTES) as folder,
        errand(_churn, folder, load, first="fill") as churn,
        BlockStore(folder) as store,
    ):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        evicted_before = stores.counter(store, "evicted")
        quiet, evicting = _Hits(store, load), _Hits(store, load)
        contenders = [
            Contender("quiet", quiet.slow_end),
            Contender("evicting", partial(_while, churn, evicting.slow_end)),
        ]
        samples = interleave(contenders, load["rounds"])
        evicted = stores.counter(store, "evicted") - evicted_before
    if not evicted:
        raise RuntimeError("nothing was evicted: the rounds do not show what they are for")
    bars = [compare("p99 of 100 hits, evicting / quiet", samples, "evicting", "quiet", 1.5, "at most")]
    facts = {
        "longest_batch_quiet_us": quiet.longest_s * 1e6,
        "longest_batch_evicting_us": evicting.longest_s * 1e6,
        "hits_given_up_as_busy_share": evicting.busy / evicting.hits,
        "evicted_blocks": evicted,
    }
    return Outcome("s, p99 of 100 hits", samples, bars, load, facts)


CASE = Case(
    "maintainer",
    "hits while the maintainer evicts on the other core",
    "no lock is shared: what is left is cache lines of changed index pages, and memory bandwidth",
    run,
)


class _Hits:
    """Batches of hits on keys in a random order, and the longest of them.

    A hot key is never evicted. A look-up that misses all the same met a page in the middle of a change and
    gave up, as it promises never to wait; such are counted.
    """

    def __init__(self, store: BlockStore, load: dict[str, Any]) -> None:
        self._get = store.get
        self._load = load
        self._keys = workload.shuffled(workload.keys(load["hot_count"], load["seed"]), load["seed"] + 1)
        self._next = itertools.cycle(self._keys)
        self.longest_s = 0.0
        self.busy = 0
        self.hits = 0

    def slow_end(self) -> float:
        """Run a round of batches; returns the 99th percentile, in seconds."""
        size: int = self._load["batch_hits"]
        taken = []
        for _ in range(self._load["round_batches"]):
            batch = list(itertools.islice(self._next, size))
            taken.append(self._time(batch))
        self.hits += size * len(taken)
        self.longest_s = max(self.longest_s, *taken)
        return statistics.quantiles(taken, n=100)[PERCENTILE - 1]

    def _time(self, batch: list[bytes]) -> float:
        get = self._get
        busy = 0
        started = time.perf_counter()
        for key in batch:
            view = get(key)
            if view is None:
                busy += 1
            else:
                view.release()
        taken = time.perf_counter() - started
        self.busy += busy
        return taken


def _while(churn: Connection, measure: Callable[[], float]) -> float:
    """Measure while the other process churns; it has begun before and has ended afterwards."""
    tell(churn, "churn")
    figure = measure()
    tell(churn, "rest")
    return figure


def _churn(folder: Path, load: dict[str, Any], pipe: Connection) -> None:
    """Fill the store and be its maintainer; then put new records between `churn` and `rest`."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    numbers = itertools.count()
    record = bytes(load["churn_bytes"])
    with stores.create(folder, load["quota_bytes"]) as store:
        store.set_retention(CHURN, "lru")
        while (order := pipe.recv()) != END:
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
