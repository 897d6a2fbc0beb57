"""read_100k: `Cache.read` and `Cache.readinto` of cached files against the same files on ext4.

The files are a file:// dataset on the file system of the build folder, and their pages are in the page cache;
the rival opens them by their paths. A view is taken and released, a map made and closed: no byte is
touched. readinto delivers all bytes into one buffer of the caller's, from a MEM tier and from an SSD tier
that lies on the same file system as the files.
"""

from __future__ import annotations

import mmap
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import forebay
from perf import workload
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.places import disk_folder, memory_folder

DATASET = "files"
ROOM_BYTES = 1 << 30


def run(quick: bool) -> Outcome:
    """Read all files again and again, through the cache and by themselves."""
    load = workload.load("cached", quick)
    with ExitStack() as stack:
        memory = stack.enter_context(memory_folder(ROOM_BYTES))
        disk = stack.enter_context(disk_folder())
        names = _write_files(disk / "data", load)
        paths = [str(disk / "data" / name) for name in names]
        keys = [f"{DATASET}/{name}" for name in names]
        open_cache = partial(_filled_cache, disk / "data", keys, load)
        mem = stack.enter_context(open_cache(memory, "MEM"))
        ssd = stack.enter_context(open_cache(disk / "ssd", "SSD"))
        cold = stack.enter_context(forebay.open(mem.path, max_recent_bytes=0))
        recorded = stack.enter_context(forebay.open(mem.path))
        stack.enter_context(recorded.record("reads", manifests=False))
        buffer = bytearray(load["file_bytes"])
        rate = partial(_rate, load)
        contenders = [
            Contender("read, MEM", partial(rate, keys, partial(_read, mem))),
            Contender("read, MEM, look-up in LMDB", partial(rate, keys, partial(_read, cold))),
            Contender("read, MEM, recorded", partial(rate, keys, partial(_read, recorded))),
            Contender("open + mmap + close", partial(rate, paths, _map)),
            Contender("readinto, MEM", partial(rate, keys, partial(_readinto, mem, buffer))),
            Contender("readinto, SSD", partial(rate, keys, partial(_readinto, ssd, buffer))),
            Contender("open + readinto + close", partial(rate, paths, partial(_read_file, buffer))),
        ]
        samples = interleave(contenders, load["rounds"])
    bars = [
        compare("read of 100 KiB, view / open + mmap", samples, "read, MEM", "open + mmap + close", 3.0),
        compare("readinto of 100 KiB, MEM / file", samples, "readinto, MEM", "open + readinto + close", 1.3),
        compare("readinto of 100 KiB, SSD / file", samples, "readinto, SSD", "open + readinto + close", 0.9),
    ]
    return Outcome("files/s", samples, bars, load)


CASE = Case(
    "cache_read",
    "reads of cached 100 KiB files in random order",
    "a hit of the store and a look-up in a table; for readinto one copy at memory bandwidth",
    run,
)


def _write_files(folder: Path, load: dict[str, Any]) -> list[str]:
    folder.mkdir()
    source = random.Random(load["seed"])
    names = [f"{number:06}.bin" for number in range(load["file_count"])]
    for name in names:
        (folder / name).write_bytes(source.randbytes(load["file_bytes"]))
    return names


@contextmanager
def _filled_cache(
    data: Path, keys: list[str], load: dict[str, Any], folder: Path, medium: Literal["MEM", "SSD"]
) -> Iterator[forebay.Cache]:
    """Give a cache that holds all files, right to the byte."""
    tiers = [forebay.Tier(str(folder / "tier"), load["quota_bytes"], medium)]
    with forebay.open(folder / "cache", tiers=tiers) as cache:
        cache.attach(DATASET, f"file://{data}", max_age=None)
        cache.load(DATASET).wait()
        if cache.usage(DATASET).cached_bytes != load["file_count"] * load["file_bytes"]:
            raise RuntimeError(f"not all files found room in a {medium} tier of {load['quota_bytes']} bytes")
        for key in keys[::10]:
            if bytes(cache.read(key)) != (data / Path(key).name).read_bytes():
                raise RuntimeError(f"the cache returned wrong bytes for {key}")
        yield cache


def _rate(load: dict[str, Any], names: list[str], run: Callable[[list[str]], None]) -> float:
    """Read in fresh orders; returns files per second."""
    orders = []
    for number in range(load["passes"]):
        order = names[:]
        random.Random(load["seed"] + number).shuffle(order)
        orders.append(order)
    started = time.perf_counter()
    for order in orders:
        run(order)
    return len(orders) * len(names) / (time.perf_counter() - started)


def _read(cache: forebay.Cache, keys: list[str]) -> None:
    read = cache.read
    for key in keys:
        read(key).release()


def _map(paths: list[str]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        view = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        os.close(descriptor)
        view.close()


def _readinto(cache: forebay.Cache, buffer: bytearray, keys: list[str]) -> None:
    readinto = cache.readinto
    for key in keys:
        readinto(key, buffer)


def _read_file(buffer: bytearray, paths: list[str]) -> None:
    buffers = [buffer]
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.readv(descriptor, buffers)
        os.close(descriptor)
