"""mount_small: 2,000 files of 100 KiB through every mount: opened, read and closed, and asked for attributes.

A turn of a system: the kernel's caches dropped, all files read by one process in a random order; the same
again, the pages now in the page cache; the attributes of all. Then, the caches dropped anew, all files read
by four processes, a quarter each. Each system has all files in its cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from perf import workload
from perf.crew import Crew
from perf.fuse.mounts import Mount, drop_kernel_caches
from perf.fuse.passes import check_same, rate, read_files, shuffled, stat_files
from perf.fuse.stage import Stage
from perf.fuse.systems import BARE, NEW_JUICEFS, OURS, PEERS, SYSTEMS, all_mounted, peer_versions
from perf.harness import (
    Bar,
    Case,
    Outcome,
    Samples,
    collector_off,
    compare,
    compare_with_best,
    turns,
)
from perf.places import memory_folder
from perf.system.bucket import served, write_objects

ROOM_BYTES = 4 << 30
STAT_PASSES = 5  # one is over in a few milliseconds
ONE, AGAIN, STAT, MANY = "one process", "again, pages cached", "stat", "four processes"


def run(quick: bool) -> Outcome:
    """Let every system take its turn, round after round."""
    load = workload.load("mount", quick)
    with memory_folder(ROOM_BYTES) as folder, served(folder / "s3") as server:
        stage = Stage(folder, server, server.endpoint_url, load)
        keys = write_objects(folder / "s3", load["small_count"], load["small_bytes"], load["seed"])
        with all_mounted(stage, SYSTEMS) as mounts:
            for mount in mounts.values():
                check_same(mount.root, stage.objects, keys)
            with _readers(mounts, keys, load) as readers:
                samples = _measure(readers, stage)
    return Outcome("files/s", samples, _bars(samples), load, peer_versions(SYSTEMS))


CASE = Case(
    "mount_small",
    "cached files of 100 KiB through a mount",
    "the requests that a file needs, 50 to 70 us each",
    run,
)


class _Reader:
    """Reads the files of one mount, by itself and with a crew."""

    def __init__(self, mount: Mount, keys: list[str], crew: Crew, load: dict[str, Any]) -> None:
        self._paths = shuffled(mount.root, keys, load["seed"])
        self._crew = crew
        self._read = partial(read_files, size_bytes=load["small_bytes"])

    def turn(self) -> dict[str, float]:
        """Take all passes; returns files a second of each."""
        drop_kernel_caches()
        figures = {
            ONE: self._rate(self._read),
            AGAIN: self._rate(self._read),
            STAT: self._rate(self._stat),
        }
        drop_kernel_caches()
        return figures | {MANY: self._crew.throughput()}

    def _stat(self, paths: list[str]) -> int:
        return sum(stat_files(paths) for _ in range(STAT_PASSES))

    def _rate(self, run: Callable[[list[str]], int]) -> float:
        started = time.perf_counter()
        return rate(run(self._paths), started)


@contextmanager
def _readers(mounts: dict[str, Mount], keys: list[str], load: dict[str, Any]) -> Iterator[dict[str, _Reader]]:
    """Make the readers of all mounts, each with processes of its own."""
    count = load["processes"]
    with ExitStack() as stack:
        readers = {}
        for name, mount in mounts.items():
            shares = [(mount.root, keys[first::count], load) for first in range(count)]
            readers[name] = _Reader(mount, keys, stack.enter_context(Crew(_make_member, shares)), load)
        yield readers


def _make_member(root: Path, keys: list[str], load: dict[str, Any]) -> Callable[[], int]:
    return partial(read_files, shuffled(root, keys, load["seed"]), load["small_bytes"])


def _measure(readers: dict[str, _Reader], stage: Stage) -> Samples:
    samples: Samples = {f"{pass_}, {name}": [] for pass_ in (ONE, MANY, AGAIN, STAT) for name in readers}
    data_bytes = stage.load["small_count"] * stage.load["small_bytes"]
    for name, kept in turns(list(readers), stage.load["small_rounds"]):
        with stage.from_cache(name, data_bytes), collector_off():
            figures = readers[name].turn()
        for pass_, figure in figures.items() if kept else ():
            samples[f"{pass_}, {name}"].append(figure)
    return samples


def _bars(samples: Samples) -> list[Bar]:
    def against(name: str, title: str, pass_: str, target: float | None) -> Bar:
        return compare(f"{title} / {name}", samples, f"{pass_}, {OURS}", f"{pass_}, {name}", target)

    def against_peers(title: str, pass_: str, target: float) -> list[Bar]:
        rivals = [f"{pass_}, {name}" for name in PEERS]
        return [
            compare_with_best(f"{title} / best peer", samples, f"{pass_}, {OURS}", rivals, target),
            against(NEW_JUICEFS, title, pass_, None),
        ]

    of_files = "mount, open + read + close of 100 KiB"
    return [
        against(BARE, of_files, ONE, 0.75),
        *against_peers(of_files, ONE, 2.0),
        *against_peers(f"{of_files}, four processes", MANY, 2.0),
        *against_peers(f"{of_files}, page cache warm", AGAIN, 4.0),
        against("rclone", "mount, stat after reading", STAT, 0.9),
    ]
