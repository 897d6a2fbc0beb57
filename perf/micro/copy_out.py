"""copy_1m: readinto of cached 1 MiB blocks, against a bare memcpy loop over these very blocks.

Over the same pages, because copies from physical memory that lies together are up to a third faster, and how
much of it does is chance: it was so for either side with a working set of its own.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np

from forebay import BlockStore, View
from perf import native, stores, workload
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.places import memory_folder
from perf.region import address_of

ROOM_BYTES = 3 << 30


def run(quick: bool) -> Outcome:
    """Copy every block once a round, in a random order, from the store and from a bare map."""
    load = workload.load("copy_out", quick)
    block_bytes, count = load["block_bytes"], load["block_count"]
    keys = workload.keys(count, load["seed"])
    buffer = bytearray(block_bytes)
    with (
        memory_folder(ROOM_BYTES) as folder,
        stores.create(folder / "store", load["quota_bytes"], block_bytes) as store,
        ExitStack() as held,
    ):
        _fill(store, keys, block_bytes, load["seed"])
        blocks = [_address_of(held.enter_context(_present(store, key))) for key in keys]
        contenders = [
            Contender("readinto", partial(_readinto_rate, store, keys, buffer, load)),
            Contender("memcpy", partial(_memcpy_rate, blocks, buffer, load)),
        ]
        samples = interleave(contenders, load["rounds"], warm_ups=2)
    bars = [compare("copy_1m / memcpy", samples, "readinto", "memcpy", 0.9)]
    return Outcome("bytes/s", samples, bars, load)


CASE = Case(
    "copy_out",
    "copy of a cached 1 MiB block into a caller's buffer, MEM tier",
    "memory bandwidth of one core",
    run,
)


def _fill(store: BlockStore, keys: list[bytes], block_bytes: int, seed: int) -> None:
    data = random.Random(seed).randbytes(block_bytes)
    buffer = bytearray(block_bytes)
    for key in keys:
        if not store.put(key, data):
            raise RuntimeError("a store below its watermark refused a block")
    if store.readinto(keys[0], buffer) != block_bytes or buffer != data:
        raise RuntimeError("the store returned wrong bytes")


def _present(store: BlockStore, key: bytes) -> View:
    view = store.get(key)
    if view is None:
        raise RuntimeError("the store lost a block")
    return view


def _address_of(view: View) -> int:
    return int(np.frombuffer(memoryview(view), dtype=np.uint8).ctypes.data)


def _order(load: dict[str, Any]) -> list[int]:
    order = list(range(load["block_count"]))
    random.Random(load["seed"]).shuffle(order)
    return order


def _readinto_rate(store: BlockStore, keys: list[bytes], buffer: bytearray, load: dict[str, Any]) -> float:
    order = [keys[number] for number in _order(load)]
    readinto = store.readinto
    started = time.perf_counter()
    for key in order:
        readinto(key, buffer)
    return _bytes_read(load) / (time.perf_counter() - started)


def _memcpy_rate(blocks: list[int], buffer: bytearray, load: dict[str, Any]) -> float:
    order = [blocks[number] for number in _order(load)]
    taken = native.copy_out_ns(address_of(buffer), order, load["block_bytes"])
    return _bytes_read(load) / (taken / 1e9)


def _bytes_read(load: dict[str, Any]) -> int:
    return int(load["block_count"] * load["block_bytes"])
