"""A tier's disk is full, or out of inodes: blocks are not admitted, reads go on, and it comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forebay.config import MIB
from forebay.store import BlockStore
from forebay.testing.tier import FaultyTier
from tests.faults._damage import CacheFolder, count, nothing_left, one_tier

SIZE = 100_000
DISK_BYTES = 40 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FaultyTier]:
    """A file system of 40 MiB."""
    with FaultyTier(tmp_path / "disk", DISK_BYTES, inode_count=64) as tier:
        yield tier


@pytest.fixture
def folder(disk: FaultyTier, tmp_path: Path) -> Iterator[CacheFolder]:
    """A cache with a tier of twice the disk's size on it."""
    folder = one_tier(tmp_path / "cache", disk.path / "tier", "SSD", 2 * DISK_BYTES)
    with nothing_left(folder):
        yield folder


def _used_bytes(path: Path) -> int:
    return sum(os.stat(found).st_blocks * 512 for found in path.rglob("*") if found.is_file())


def _fill_up(folder: CacheFolder, store: BlockStore, prefix: str) -> int:
    """Put until a block is not admitted; returns how many were."""
    for number in range(10_000):
        if not folder.put(store, f"{prefix}{number}".encode(), SIZE):
            return number
    raise AssertionError("everything was admitted")


def _tier(store: BlockStore) -> dict[str, Any]:
    return dict(store.status()["tiers"][0])


def test_a_tenth_of_the_disk_stays_free(folder: CacheFolder, disk: FaultyTier) -> None:
    with folder.open() as store:
        assert _fill_up(folder, store, "a") > 200
        assert _used_bytes(disk.path) <= 0.9 * DISK_BYTES
        assert folder.warm(store) == set(folder.sizes)
        tier = _tier(store)
        assert not tier["failed"]
        assert tier["effective_bytes"] < tier["quota_bytes"]
        assert "no room" in tier["cause"]
        assert count(store, "not_admitted") == 1


def test_a_disk_that_others_fill_shrinks_the_quota_and_gives_it_back(
    folder: CacheFolder, disk: FaultyTier
) -> None:
    with folder.open() as store:
        folder.fill(store, 100, SIZE, "early")
        used_before = _tier(store)["used_bytes"]
        disk.fill()
        for _ in range(30):
            store.maintain()
        tier = _tier(store)
        assert used_before - 6 * MIB < tier["used_bytes"] <= tier["effective_bytes"] < used_before
        assert _used_bytes(disk.path) <= 0.9 * DISK_BYTES
        assert not tier["failed"]
        folder.warm(store)  # what is still there is right
        disk.relieve()
        for _ in range(60):
            store.maintain()
        assert _fill_up(folder, store, "again") > 150
        folder.heal(store, set(list(folder.sizes)[-20:]))


def test_a_full_disk_in_the_middle_of_a_segment(folder: CacheFolder, disk: FaultyTier) -> None:
    """Segments of disk tiers are allocated when they are made, so an open one still takes what fits."""
    with folder.open() as store:
        folder.fill(store, 3, SIZE)
        disk.fill()
        before = len(folder.sizes)
        for number in range(50):
            folder.put(store, b"more%d" % number, SIZE)
        assert len(folder.sizes) - before < 10
        assert folder.warm(store) == set(folder.sizes)
        assert store.check().ok
        disk.relieve()
        for _ in range(60):
            store.maintain()
        assert _fill_up(folder, store, "again") > 150


def test_a_disk_out_of_inodes(folder: CacheFolder, disk: FaultyTier) -> None:
    with folder.open() as store:
        folder.fill(store, 30, SIZE)
        disk.use_up_inodes()
        _fill_up(folder, store, "a")
        assert folder.warm(store) == set(folder.sizes)
        assert not _tier(store)["failed"]
        disk.relieve()
        for _ in range(60):
            store.maintain()
        assert _fill_up(folder, store, "again") > 100
        assert folder.warm(store) >= {key for key in folder.sizes if key.startswith(b"again")}


def test_a_store_cannot_be_made_on_a_full_disk_and_says_so(disk: FaultyTier) -> None:
    folder = one_tier(disk.path / "cache", disk.path / "tier", "SSD")
    disk.fill()
    with pytest.raises(OSError, match=str(disk.path)):
        folder.open()
    disk.relieve()
    with folder.open() as store:
        assert folder.fill(store, 5, SIZE)


def test_a_full_disk_below_the_index(disk: FaultyTier, memory_path: Path) -> None:
    """The index cannot grow: what does not fit into it is not admitted, and nothing faults."""
    folder = one_tier(disk.path / "cache", memory_path / "tier", "MEM", "64MiB")
    with nothing_left(folder), folder.open() as store:
        folder.fill(store, 1_000, 64, "early")
        disk.fill()
        admitted = sum(folder.put(store, b"late%d" % number, 64) for number in range(60_000))
        assert 10_000 < admitted < 60_000
        sample = list(folder.sizes)[:: len(folder.sizes) // 500]
        assert folder.warm(store, sample) == set(sample)
        disk.relieve()
        assert sum(folder.put(store, b"again%d" % number, 64) for number in range(20_000)) == 20_000
        sample = list(folder.sizes)[:: len(folder.sizes) // 500]
        assert folder.warm(store, sample) == set(sample)
