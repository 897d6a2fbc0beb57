"""tree_100k: `Cache.pin`, `unpin`, `ttl` and `free` of 100,000 cached files, and readers beside them.

The reader is a process of its own, on a core of its own, and hits other blocks of the same cache.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from forebay import BlockStore, Cache, Tier
from perf import workload
from perf.errand import END, errand, tell
from perf.harness import Case, Contender, Outcome, compare, interleave, within_limit
from perf.places import memory_folder
from perf.system.known import BLOCK, MANY, open_known, put_all

ROOM_BYTES = 2 << 30
HOT_COUNT = 20_000
LIMIT_S = 1.0
LIMIT_FILES = 100_000
TTL_S = 1e6
PERCENTILE = 99


def run(quick: bool) -> Outcome:
    """Time the verbs, then read in alternating rounds, quiet and beside them."""
    load = workload.load("tree", quick)
    with memory_folder(ROOM_BYTES) as folder:
        tiers = [Tier(str(folder / "tier"), load["quota_bytes"], "MEM")]
        with open_known(folder / "cache", load, tiers) as cache:
            put_all(cache, load)
            contenders = [
                Contender("pin", partial(_seconds, load, lambda: cache.pin(MANY))),
                Contender("ttl", partial(_seconds, load, lambda: cache.ttl(MANY, TTL_S))),
                Contender("unpin", partial(_seconds, load, lambda: cache.unpin(MANY))),
                Contender("free", partial(_free, cache, load)),
            ]
            samples = interleave(contenders, load["rounds"])
        samples |= _beside(folder / "cache", load)
    # For another number of files the limit is what it is for one, so many times.
    limit_s = LIMIT_S * load["key_count"] / LIMIT_FILES
    bars = [
        within_limit(f"{name} of 100,000 files / 1 s", samples[name], limit_s)
        for name in ("pin", "ttl", "unpin", "free")
    ]
    bars.append(compare("p99 of 100 hits, beside verbs / quiet", samples, "beside", "quiet", 1.5, "at most"))
    return Outcome("s", samples, bars, load)


CASE = Case(
    "tree",
    "pin, ttl, unpin and free of 100,000 cached files, and hits beside them",
    "an entry, a key and a slot for each file",
    run,
)


def _seconds(load: dict[str, Any], verb: Callable[[], int]) -> float:
    started = time.perf_counter()
    count = verb()
    seconds = time.perf_counter() - started
    if count != load["key_count"]:
        raise RuntimeError(f"{count} blocks were reached of {load['key_count']}")
    return seconds


def _free(cache: Cache, load: dict[str, Any]) -> float:
    """Free one folder after another, as paths below the dataset are freed; all is put again afterwards."""
    folders = cache.listdir(MANY)
    started = time.perf_counter()
    for folder in folders:
        cache.free(f"{MANY}/{folder}")
    seconds = time.perf_counter() - started
    if left := cache.status()["blocks"]:
        raise RuntimeError(f"{left} blocks are left")
    put_all(cache, load)
    return seconds


def _beside(cache_dir: Path, load: dict[str, Any]) -> dict[str, list[float]]:
    with BlockStore(cache_dir, maintainer=False) as store:
        keys = workload.keys(HOT_COUNT, load["seed"])
        for key in keys:
            if not store.put(key, BLOCK):
                raise RuntimeError("a store below its watermark refused a block")
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        hits = _Hits(store, workload.shuffled(keys, load["seed"]), load)
        with errand(_verbs, cache_dir, load) as verbs:
            contenders = [
                Contender("quiet", hits.slow_end),
                Contender("beside", partial(_while, verbs, hits.slow_end)),
            ]
            return interleave(contenders, load["rounds"])


class _Hits:
    """Batches of hits on keys in a random order."""

    def __init__(self, store: BlockStore, keys: list[bytes], load: dict[str, Any]) -> None:
        self._get = store.get
        self._next = itertools.cycle(keys)
        self._load = load

    def slow_end(self) -> float:
        """Run a round of batches; returns the 99th percentile, in seconds."""
        taken = []
        for _ in range(self._load["round_batches"]):
            batch = list(itertools.islice(self._next, self._load["batch_hits"]))
            started = time.perf_counter()
            for key in batch:
                view = self._get(key)
                if view is not None:
                    view.release()
            taken.append(time.perf_counter() - started)
        return statistics.quantiles(taken, n=100)[PERCENTILE - 1]


def _while(verbs: Connection, measure: Callable[[], float]) -> float:
    tell(verbs, "work")
    figure = measure()
    tell(verbs, "rest")
    return figure


def _verbs(cache_dir: Path, load: dict[str, Any], pipe: Connection) -> None:
    """Pin, give a time and unpin again and again between `work` and `rest`."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with open_known(cache_dir, load) as cache:
        while (order := pipe.recv()) != END:
            pipe.send(order)
            while order == "work" and not pipe.poll():
                cache.pin(MANY)
                cache.ttl(MANY, TTL_S)
                cache.unpin(MANY)
