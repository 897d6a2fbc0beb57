"""put_128k: into recycled, mapped segments with the evictor running, and into fresh ones.

The first is measured against memcpy with CRC32C fused into it, in C, over a region as large as the tier's
quota; the second against pwrite to a new tmpfs file, which pays for new pages as a new segment does.
Refused puts count as time and not as work.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from forebay import BlockStore
from perf import native, stores, workload
from perf.harness import Case, Contender, Outcome, Samples, compare, interleave
from perf.places import memory_folder
from perf.region import address_of, shared_region

ROOM_BYTES = 3 << 30
CHURN_DATASET = 1


def run(quick: bool) -> Outcome:
    """Measure both kinds of put in turn with their limits."""
    load = workload.load("put", quick)
    source = bytearray(random.Random(load["seed"]).randbytes(load["source_blocks"] * load["block_bytes"]))
    facts: dict[str, Any] = {}
    with memory_folder(ROOM_BYTES) as folder:
        samples = _recycled(folder, load, source, facts) | _fresh(folder, load, source)
    bars = [
        compare("put_128k recycled / memcpy + CRC32C", samples, "put, recycled", "memcpy + CRC32C", 0.8),
        compare("put_128k fresh / pwrite to tmpfs", samples, "put, fresh", "pwrite to tmpfs", 0.8),
    ]
    return Outcome("bytes/s", samples, bars, load, facts)


CASE = Case(
    "store_put",
    "128 KiB put, MEM tier",
    "one pass over the bytes: memory bandwidth, with the checksum hidden behind it",
    run,
)


class _Source:
    """Blocks of random bytes and endless new keys for them."""

    def __init__(self, load: dict[str, Any], source: bytearray) -> None:
        self._numbers = itertools.count()
        size = load["block_bytes"]
        self.blocks = [memoryview(source)[start : start + size] for start in range(0, len(source), size)]

    def records(self, count: int) -> Iterator[tuple[bytes, memoryview]]:
        """Give `count` records under keys that were not given before."""
        for number, block in zip(
            itertools.islice(self._numbers, count), itertools.cycle(self.blocks), strict=False
        ):
            yield number.to_bytes(16, "little"), block


def _recycled(folder: Path, load: dict[str, Any], source: bytearray, facts: dict[str, Any]) -> Samples:
    quota: int = load["quota_bytes"]
    block_bytes: int = load["block_bytes"]
    count: int = load["recycled_count"]
    records = _Source(load, source)
    refusals: list[float] = []
    with (
        stores.create(folder / "recycled", quota, block_bytes) as store,
        shared_region(folder / "region", quota) as region,
    ):
        store.set_retention(CHURN_DATASET, "lru")

        def limit() -> float:
            taken = native.copy_crc_ns(
                region, quota // block_bytes, address_of(source), load["source_blocks"], block_bytes, count
            )
            return count * block_bytes / (taken / 1e9)

        contenders = [
            Contender("put, recycled", partial(_put_rate, store, records, count, block_bytes, refusals)),
            Contender("memcpy + CRC32C", limit),
        ]
        samples = interleave(contenders, load["rounds"], load["recycled_warm_ups"])
    facts["refused_share"] = sum(refusals) / len(refusals)
    return samples


def _put_rate(
    store: BlockStore, source: _Source, count: int, block_bytes: int, refusals: list[float]
) -> float:
    put = store.put
    admitted = 0
    records = list(source.records(count))
    started = time.perf_counter()
    for key, block in records:
        admitted += put(key, block, dataset=CHURN_DATASET)
    seconds = time.perf_counter() - started
    refusals.append(1 - admitted / count)
    return admitted * block_bytes / seconds


def _fresh(folder: Path, load: dict[str, Any], source: bytearray) -> Samples:
    records = _Source(load, source)
    contenders = [
        Contender("put, fresh", partial(_fresh_put_rate, folder / "fresh", load, records)),
        Contender("pwrite to tmpfs", partial(_pwrite_rate, folder / "file", load, source)),
    ]
    return interleave(contenders, load["rounds"])


def _fresh_put_rate(path: Path, load: dict[str, Any], source: _Source) -> float:
    """Put into a store that was just made; the making and the removing are not timed."""
    store = stores.create(path, load["quota_bytes"], load["block_bytes"])
    refusals: list[float] = []
    with store:
        rate = _put_rate(store, source, load["fresh_count"], load["block_bytes"], refusals)
    shutil.rmtree(path)
    if any(refusals):
        raise RuntimeError(f"a store below its watermark refused {refusals[0]:.0%} of the puts")
    return rate


def _pwrite_rate(path: Path, load: dict[str, Any], source: bytearray) -> float:
    count: int = load["fresh_count"]
    block_bytes: int = load["block_bytes"]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        taken = native.pwrite_ns(file, address_of(source), load["source_blocks"], block_bytes, count)
    finally:
        os.close(file)
        path.unlink()
    return count * block_bytes / (taken / 1e9)
