"""Shared by the tests of a mount's parts: a cache over an under storage in memory, and operations on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.fuse.operations import Operations
from forebay.fuse.options import MountOptions
from forebay.testing.clock import ManualClock
from forebay.testing.faulty import FaultyStorage

TREE = {
    "a": b"1",
    "sub/b": b"22" * 100_000,
    "sub/c": b"333",
    "sub/deep/d": b"4",
    "both": b"o",
    "both/x": b"x",
}

# Makes operations on the dataset ``d``, attached with these settings.
Mounting = Callable[..., Operations]


@pytest.fixture
def storage() -> FaultyStorage:
    """An under storage in memory with a small tree in it."""
    return FaultyStorage(TREE)


@pytest.fixture
def clock() -> ManualClock:
    """The clock that freshness goes by."""
    return ManualClock()


@pytest.fixture
def cache(tmp_path: Path, memory_path: Path, storage: FaultyStorage, clock: ManualClock) -> Iterator[Cache]:
    """A cache that knows that storage."""
    tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
    with Cache(
        tmp_path / "cache", tiers, block_bytes=64 * KIB, schemes=storage.schemes(), clock=clock
    ) as cache:
        yield cache


@pytest.fixture
def operate(cache: Cache, storage: FaultyStorage) -> Mounting:
    """Attach the storage as ``d`` and make operations on it; nothing was asked since."""

    def make(options: MountOptions | None = None, **settings: object) -> Operations:
        cache.attach("d", "faulty://x", **settings)  # type: ignore[arg-type]  # any setting
        storage.calls.clear()
        return Operations(cache.nodes("d"), options or MountOptions(), read_only=True, status=cache.status)

    return make
