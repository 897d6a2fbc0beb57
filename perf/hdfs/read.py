"""hdfs_read: opening, reading all of and closing cached files by the HDFS-style API, beside `Cache.readinto`.

Both read the same files in the same random orders into the same buffer.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import forebay
from forebay.api.hdfs import FileSystem
from perf import workload
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.hdfs.files import DATASET, filled_cache, write_files
from perf.places import memory_folder

ROOM_BYTES = 1 << 30


def run(quick: bool) -> Outcome:
    """Read small and larger files by each way in turn."""
    load = workload.load("hdfs", quick)
    with memory_folder(ROOM_BYTES) as folder:
        data = folder / "data"
        small = write_files(data / "small", load["small_count"], load["small_bytes"], load["seed"])
        middle = write_files(data / "middle", load["middle_count"], load["middle_bytes"], load["seed"])
        with filled_cache(folder, data, load) as cache:
            fs = FileSystem(cache)
            contenders = []
            for label, name, names in (("100 KiB", "small", small), ("1 MiB", "middle", middle)):
                keys = [f"{DATASET}/{name}/{each}" for each in names]
                size_bytes = load[f"{name}_bytes"]
                _check(fs, keys, data.parent, size_bytes)
                buffer = bytearray(size_bytes)
                opened, read = partial(_read_opened, fs, buffer), partial(_readinto, cache, buffer)
                paths = [f"/{key}" for key in keys]
                contenders += [
                    Contender(f"open + read_fully, {label}", partial(_seconds, load, paths, opened)),
                    Contender(f"readinto, {label}", partial(_seconds, load, keys, read)),
                ]
            samples = interleave(contenders, load["read_rounds"])
    bars = [
        compare(
            f"HDFS-style open, read_fully and close of {label} / readinto, time",
            samples,
            f"open + read_fully, {label}",
            f"readinto, {label}",
            target,
            "at most",
        )
        for label, target in (("100 KiB", 1.2), ("1 MiB", None))
    ]
    return Outcome("s a file", samples, bars, load)


CASE = Case(
    "hdfs_read",
    "open, read_fully and close of cached files by the HDFS-style API, in random order",
    "one copy at memory bandwidth",
    run,
)


def _check(fs: FileSystem, keys: list[str], parent: Path, size_bytes: int) -> None:
    """Compare some files with what they were made of. Raises: RuntimeError."""
    for key in keys[::10]:
        buffer = bytearray(size_bytes)
        with fs.open(f"/{key}") as stream:
            stream.read_fully(0, buffer)
        if buffer != (parent / "data" / key.removeprefix(f"{DATASET}/")).read_bytes():
            raise RuntimeError(f"the HDFS-style API returned wrong bytes for {key}")


def _seconds(load: dict[str, Any], names: list[str], read: Callable[[list[str]], None]) -> float:
    """Read in fresh orders; returns the seconds that one file takes."""
    orders = []
    for number in range(load["read_passes"]):
        order = names[:]
        random.Random(load["seed"] + number).shuffle(order)
        orders.append(order)
    started = time.perf_counter()
    for order in orders:
        read(order)
    return (time.perf_counter() - started) / (len(orders) * len(names))


def _read_opened(fs: FileSystem, buffer: bytearray, paths: list[str]) -> None:
    for path in paths:
        with fs.open(path) as stream:
            stream.read_fully(0, buffer)


def _readinto(cache: forebay.Cache, buffer: bytearray, keys: list[str]) -> None:
    readinto = cache.readinto
    for key in keys:
        readinto(key, buffer)
