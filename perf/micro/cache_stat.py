"""stat_100k: `Cache.stat` and `Cache.listdir` of a directory of 100,000 files, all known to the cache.

stat is asked of a few of the files again and again, and of all of them, in random order: a process keeps that
many look-ups. What a look-up in LMDB takes, as for what is not kept, is measured beside it without a bar. The
rivals are os.stat and a sorted os.listdir of the same files on ext4; the bars are limits.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import forebay
from perf import workload
from perf.harness import Bar, Case, Contender, Outcome, interleave, within_limit
from perf.places import disk_folder, memory_folder

DATASET = "files"
ROOM_BYTES = 1 << 30
STATS_PER_S = 200_000
LISTDIR_S = 0.15


def run(quick: bool) -> Outcome:
    """Describe and list, round after round."""
    load = workload.load("cached", quick)
    with memory_folder(ROOM_BYTES) as memory, disk_folder() as disk:
        names = _make_files(disk / "data", load["listed_count"])
        tiers = [forebay.Tier(str(memory / "tier"), load["quota_bytes"], "MEM")]
        with (
            forebay.open(memory / "cache", tiers=tiers) as cache,
            forebay.open(memory / "cache", max_recent_bytes=0) as forgetful,
        ):
            cache.attach(DATASET, f"file://{disk / 'data'}", max_age=None)
            if cache.listdir(DATASET) != names:
                raise RuntimeError("the cache lists other names than the folder holds")
            keys = _shuffled([f"{DATASET}/{name}" for name in names], load)
            paths = _shuffled([str(disk / "data" / name) for name in names], load)
            recent = keys[: load["recent_count"]]
            contenders = [
                Contender("stat, recent", partial(_rate, cache.stat, recent)),
                Contender("stat, all", partial(_rate, cache.stat, keys)),
                Contender("stat, all, look-up in LMDB", partial(_rate, forgetful.stat, keys)),
                Contender("os.stat", partial(_rate, os.stat, paths)),
                Contender("listdir", partial(_list_rate, partial(cache.listdir, DATASET))),
                Contender("os.listdir", partial(_list_rate, lambda: sorted(os.listdir(disk / "data")))),
            ]
            samples = interleave(contenders, load["rounds"])
    # For another number of names the limit is what it is for one, so many times.
    limit_s = LISTDIR_S * load["listed_count"] / 100_000
    seconds = [load["listed_count"] / rate for rate in samples["listdir"]]
    bars = [
        Bar(f"{asked}, per s / 200,000", 1.0, [rate / STATS_PER_S for rate in samples[asked]])
        for asked in ("stat, all", "stat, recent")
    ]
    bars += [
        within_limit("listdir of 100,000 names / 0.15 s", seconds, limit_s),
    ]
    return Outcome("names/s", samples, bars, load)


CASE = Case(
    "cache_stat",
    "stat and listdir of 100,000 files, warm",
    "a look-up in a table and an object; for listdir a string for each name",
    run,
)


def _make_files(folder: Path, count: int) -> list[str]:
    folder.mkdir()
    names = [f"{number:08}.bin" for number in range(count)]
    for name in names:
        os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT))
    return names


def _shuffled(names: list[str], load: dict[str, Any]) -> list[str]:
    random.Random(load["seed"]).shuffle(names)
    return names


def _rate(stat: Callable[[str], object], names: list[str]) -> float:
    started = time.perf_counter()
    for name in names:
        stat(name)
    return len(names) / (time.perf_counter() - started)


def _list_rate(names: Callable[[], list[str]]) -> float:
    started = time.perf_counter()
    count = len(names())
    return count / (time.perf_counter() - started)
