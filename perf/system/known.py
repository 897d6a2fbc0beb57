"""Caches that know very many objects and hold the block of each, made without a server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import forebay
from forebay import BlockStore
from forebay.cache.paths import block_key
from forebay.ufs import SCHEMES, ObjectInfo, RangeBody, UnderStorage
from perf.system.keys import PAGE_KEYS, key_of

MANY = "many"
BLOCK = bytes(64)


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


def open_known(
    cache_dir: Path, load: dict[str, Any], tiers: list[forebay.Tier] | None = None
) -> forebay.Cache:
    """Open a cache whose dataset MANY has the objects of a workload."""

    def make(uri: str, options: Mapping[str, Any]) -> UnderStorage:
        return _Keys(load)

    return forebay.open(cache_dir, tiers=tiers, schemes={**SCHEMES, "keys": make})


def put_all(cache: forebay.Cache, load: dict[str, Any]) -> None:
    """Attach MANY, list all of its objects and put the block of each into the store."""
    attached = cache.attach(MANY, "keys://", max_age=None)
    result = cache.load(MANY, metadata_only=True).wait()
    if result.progress.files_done != load["key_count"]:
        raise RuntimeError(f"the load ended {result.state}: {result.reason}; {result.progress}")
    with BlockStore(cache.path) as store:
        for number in range(load["key_count"]):
            info = _info(number, load)
            key = block_key(attached.id, info.path, info.version, 0, store.block_bytes)
            if not store.put(key, BLOCK, dataset=attached.id):
                raise RuntimeError(f"a store below its watermark refused block {number}")
