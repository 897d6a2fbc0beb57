"""memory_1m: private memory of a process with a cache of 1 M blocks and 1 M entries.

It describes and reads very many of them, and fetches one object from a real S3 server. What a process takes
that only makes clients of boto3 and obstore and fetches that object with each is subtracted. Shared maps and
page tables are counted apart.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import forebay
from forebay import BlockStore
from forebay.cache.paths import block_key
from forebay.ufs import SCHEMES, ObjectInfo, RangeBody, UnderStorage
from perf import memory, workload
from perf.fresh import in_fresh_process
from perf.harness import Case, Facts, Outcome, within_limit
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, served, write_objects
from perf.system.keys import PAGE_KEYS, key_of
from perf.system.peers import private_bytes_alone

ROOM_BYTES = 4 << 30
PRIVATE_LIMIT_BYTES = 20 << 20
MANY = "many"
BLOCK = bytes(64)
FETCHED_BYTES = 102_400


def run(quick: bool) -> Outcome:
    """Fill a cache, then use it in fresh processes, and boto3 and obstore by themselves in others."""
    load = workload.load("metadata", quick)
    with memory_folder(ROOM_BYTES) as folder:
        (key,) = write_objects(folder / "s3", 1, FETCHED_BYTES, load["seed"])
        with served(folder / "s3") as server:
            in_fresh_process(_fill, folder / "cache", server.endpoint_url, load)
            rounds = range(load["memory_rounds"])
            alone = [in_fresh_process(private_bytes_alone, server.endpoint_url, BUCKET, key) for _ in rounds]
            users = [in_fresh_process(_use, folder / "cache", key, load) for _ in rounds]
    samples = {
        "forebay": [float(user["private_bytes"]) for user in users],
        "boto3 and obstore": [float(figure) for figure in alone],
    }
    over = [user - figure for user, figure in zip(*samples.values(), strict=True)]
    bars = [within_limit("private bytes over boto3 and obstore / 20 MiB", over, PRIVATE_LIMIT_BYTES)]
    facts = {"page_table_bytes": max(user["page_table_bytes"] for user in users)}
    return Outcome("bytes", samples, bars, load, facts)


CASE = Case(
    "memory",
    "private memory of a process with a cache of 1 M blocks and 1 M entries",
    "the look-ups that it keeps, clients and their connections",
    run,
)


class _Keys(UnderStorage):
    """Objects that can be listed and are never read: their blocks are put into the store by this case."""

    has_directories = False

    def __init__(self, load: dict[str, Any]) -> None:
        self._load = load

    def stat(self, path: str) -> ObjectInfo:
        return ObjectInfo(path, 0, 0, "", is_dir=True)

    def list(self, path: str) -> NoReturn:
        raise OSError(f"{path!r}: these objects are walked")

    def walk(self, path: str, prefix_workers: int = 8) -> Iterator[Sequence[ObjectInfo]]:
        count: int = self._load["key_count"]
        for first in range(0, count, PAGE_KEYS):
            numbers = range(first, min(first + PAGE_KEYS, count))
            yield [_info(number, self._load) for number in numbers]

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        raise OSError(f"{path!r}: read from the under storage, although it is cached")

    def close(self) -> None:
        return


def _info(number: int, load: dict[str, Any]) -> ObjectInfo:
    return ObjectInfo(key_of(number, load["keys_a_folder"]), len(BLOCK), 0, f"{number:032x}")


def _open(cache_dir: Path, load: dict[str, Any], tiers: list[forebay.Tier] | None = None) -> forebay.Cache:
    def make(uri: str, options: Mapping[str, Any]) -> UnderStorage:
        return _Keys(load)

    return forebay.open(cache_dir, tiers=tiers, schemes={**SCHEMES, "keys": make})


def _fill(cache_dir: Path, endpoint_url: str, load: dict[str, Any]) -> None:
    """Make a cache that knows all objects and holds the block of each."""
    tiers = [forebay.Tier(str(cache_dir / "tier"), load["quota_bytes"], "MEM")]
    with _open(cache_dir, load, tiers) as cache:
        cache.attach(DATASET, f"s3://{BUCKET}", endpoint_url=endpoint_url, max_age=None)
        attached = cache.attach(MANY, "keys://", max_age=None)
        result = cache.load(MANY, metadata_only=True).wait()
        if result.progress.files_done != load["key_count"]:
            raise RuntimeError(f"the load ended {result.state}: {result.reason}; {result.progress}")
        with BlockStore(cache_dir) as store:
            for number in range(load["key_count"]):
                info = _info(number, load)
                key = block_key(attached.id, info.path, info.version, 0, store.block_bytes)
                if not store.put(key, BLOCK, dataset=attached.id):
                    raise RuntimeError(f"a store below its watermark refused block {number}")


def _use(cache_dir: Path, key: str, load: dict[str, Any]) -> Facts:
    """Open the cache, use very many of its objects and fetch one; returns the memory that it takes."""
    source = random.Random(load["seed"])
    with _open(cache_dir, load) as cache:
        for _ in range(load["touched_keys"]):
            path = f"{MANY}/{key_of(source.randrange(load['key_count']), load['keys_a_folder'])}"
            if cache.stat(path).size != len(BLOCK):
                raise RuntimeError(f"{path}: the cache knows another size")
            cache.read(path).release()
        cache.free(f"{DATASET}/{key}")
        cache.read(f"{DATASET}/{key}").release()
        memory.give_back_free_heap()
        return {"private_bytes": memory.private_bytes(), "page_table_bytes": memory.page_table_bytes()}
