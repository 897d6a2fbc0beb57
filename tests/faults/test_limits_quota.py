"""Quotas and watermarks are kept, as du(1) sees it and as the status tells, whatever is put."""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.config import KIB, MIB, Medium
from forebay.store import BlockStore, Tier
from tests.faults._damage import CacheFolder, count
from tests.faults.conftest import MakeFolder

SIZES = (100, 5_000, 70_000, 300_000)


def _segment_bytes_on_disk(folder: CacheFolder, number: int = 0) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.segments(number))


def _check_account(folder: CacheFolder, store: BlockStore) -> None:
    """Used and free add up to what lies there; nothing is above the quota."""
    for number, tier in enumerate(store.status()["tiers"]):
        assert tier["used_bytes"] <= tier["quota_bytes"]
        assert tier["used_bytes"] + tier["free_bytes"] <= tier["effective_bytes"] <= tier["quota_bytes"]
        assert tier["committed_bytes"] <= tier["used_bytes"]
        on_disk = _segment_bytes_on_disk(folder, number)
        # An extent tree or the last block of a file may take a little more than its size.
        assert on_disk <= tier["quota_bytes"] * 1.01
        assert on_disk <= (tier["used_bytes"] + tier["free_bytes"]) * 1.01


@pytest.mark.parametrize("retention", ["epoch", "s3fifo", "lru"])
@pytest.mark.parametrize("medium", ["MEM", "SSD"])
def test_the_quota_is_kept(make_folder: MakeFolder, medium: Medium, retention: str) -> None:
    folder = make_folder(medium, "24MiB")
    with folder.open() as store:
        store.set_retention(0, retention)
        for number in range(600):
            folder.put(store, b"k%d" % number, SIZES[number % len(SIZES)])
            if number % 20 == 0:
                store.maintain()
                _check_account(folder, store)
        tier = store.status()["tiers"][0]
        if retention == "epoch":
            assert tier["used_bytes"] <= 0.95 * tier["quota_bytes"]
            assert count(store, "evicted") == 0
            assert folder.warm(store) == set(folder.sizes), "what was admitted is kept"
        else:
            assert count(store, "evicted") > 0
        assert tier["used_bytes"] > 0.6 * tier["quota_bytes"]


def test_the_watermarks_are_kept_per_tier(tmp_path: Path, memory_path: Path) -> None:
    tiers = (
        Tier(str(memory_path / "mem"), "32MiB", "MEM", high=0.5, low=0.25),
        Tier(str(tmp_path / "ssd"), "64MiB", "SSD", high=0.75, low=0.5),
    )
    folder = CacheFolder(tmp_path / "cache", tiers)
    with folder.open() as store:
        for number in range(2_000):
            folder.put(store, b"k%d" % number, 70_000)
        mem, ssd = store.status()["tiers"]
        assert 0.4 < mem["used_bytes"] / mem["quota_bytes"] <= 0.5
        assert 0.7 < ssd["used_bytes"] / ssd["quota_bytes"] <= 0.75
        _check_account(folder, store)
        store.set_retention(0, "lru")
        for _ in range(50):
            store.maintain()
        mem, ssd = store.status()["tiers"]
        assert mem["used_bytes"] <= 0.5 * mem["quota_bytes"]
        assert ssd["used_bytes"] <= 0.75 * ssd["quota_bytes"]
        folder.warm(store)


@pytest.mark.parametrize("retention", ["s3fifo", "lru"])
@pytest.mark.parametrize("quota", ["5MiB", "8MiB", "16MiB", "24MiB", "32MiB"])
def test_a_tier_of_few_segments_goes_on_evicting(make_folder: MakeFolder, quota: str, retention: str) -> None:
    """The evictor's own reserve is more than what the high watermark leaves of such a tier."""
    folder = make_folder("MEM", quota)
    with folder.open() as store:
        store.set_retention(0, retention)
        offered = 3 * folder.tiers[0].quota_bytes // 20_000
        admitted = 0
        for number in range(offered):
            admitted += store.put(b"k%d" % number, bytes(20_000))
            if number % 16 == 0:
                store.maintain()
        assert admitted > 0.8 * offered
        _check_account(folder, store)


def test_a_low_watermark_far_below_the_high_is_reached(make_folder: MakeFolder, memory_path: Path) -> None:
    base = make_folder("MEM", "32MiB")
    folder = CacheFolder(base.path, (Tier(str(memory_path / "low"), "32MiB", "MEM", high=0.95, low=0.1),))
    with folder.open() as store:
        store.set_retention(0, "lru")
        for number in range(1_400):
            store.put(b"k%d" % number, bytes(20_000))
        for _ in range(20):
            store.maintain()
        tier = store.status()["tiers"][0]
        assert tier["used_bytes"] < 0.3 * tier["quota_bytes"]


def test_whole_files_count_towards_the_quota(make_folder: MakeFolder) -> None:
    folder = make_folder("MEM", "64MiB")
    with folder.open() as store:
        complete = 0
        for number in range(60):
            with store.reserve_file(b"file%d" % number, 2 * MIB, block_bytes=256 * KIB) as reservation:
                for block_number in range(8):
                    reservation.write(block_number, b"file%d/%d" % (number, block_number), b"x" * 256 * KIB)
            complete += bool(reservation.complete)
            _check_account(folder, store)
        assert 20 < complete < 32
        for number in range(200):
            folder.put(store, b"k%d" % number, 70_000)
            _check_account(folder, store)
