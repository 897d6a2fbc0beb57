"""Files that are open by number: what comes is had at once, and what is not admitted is fetched once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forebay.cache import ROOT_INODE, Cache, NodeFile
from forebay.cache.pool import FetchPool
from forebay.config import KIB, MIB, Tier
from forebay.errors import Stale, UnderStorageError
from forebay.testing.faulty import FaultyStorage
from tests.fuse._mount import until

TIMEOUT_S = 60
DATA = bytes(range(256)) * (10 * KIB)


def opened(cache: Cache, storage: FaultyStorage, **settings: object) -> NodeFile:
    """Open the object ``file``; nothing was read so far."""
    storage.put("file", DATA)
    cache.attach("d", "faulty://x", **settings)  # type: ignore[arg-type]  # any setting
    nodes = cache.nodes("d")
    file = nodes.open(nodes.child(ROOT_INODE, "file"))
    storage.calls.clear()
    return file


def fetched_bytes(cache: Cache) -> int:
    """Return what was read from the source, once what readers no longer wait for is counted as well."""
    end_s = time.monotonic() + TIMEOUT_S
    while cache.status()["fetch"]["in_flight"]:
        assert time.monotonic() < end_s
    return cache.accounts()["d"].bytes["source"]


@pytest.fixture
def large_blocks(tmp_path: Path, memory_path: Path, storage: FaultyStorage) -> Cache:
    """A cache whose blocks come in several pieces."""
    tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
    return Cache(tmp_path / "large", tiers, block_bytes=MIB, schemes=storage.schemes())


def test_the_beginning_of_a_block_is_had_before_its_end(large_blocks: Cache, storage: FaultyStorage) -> None:
    with large_blocks as cache, ThreadPoolExecutor() as threads:
        file, may_go_on = opened(cache, storage, max_age=None), threading.Event()
        storage.script("readinto", lambda: may_go_on.wait(TIMEOUT_S))
        assert bytes(file.read(10, 100)) == DATA[10:110]
        assert bytes(file.known(256 * KIB - 7, 7) or b"") == DATA[256 * KIB - 7 : 256 * KIB]
        assert file.known(MIB - 10, 10) is None
        end = threads.submit(file.read, MIB - 10, 10)
        assert not end.done()
        may_go_on.set()
        assert bytes(end.result(TIMEOUT_S)) == DATA[MIB - 10 : MIB]
        assert storage.calls["read_range"] >= 1
        file.close()


def test_all_who_wait_are_told_what_went_wrong(large_blocks: Cache, storage: FaultyStorage) -> None:
    with large_blocks as cache:
        file = opened(cache, storage, max_age=None)
        storage.script("readinto", UnderStorageError(5, "broken", "file"))
        with pytest.raises(UnderStorageError, match="broken"):
            file.read(MIB - 10, 10)
        assert bytes(file.read(MIB - 10, 10)) == DATA[MIB - 10 : MIB]
        file.close()


def test_what_is_not_admitted_is_fetched_once(cache: Cache, storage: FaultyStorage) -> None:
    file = opened(cache, storage, max_age=None, quota=1)
    for offset in range(0, len(DATA), 4 * KIB):
        assert bytes(file.read(offset, 4 * KIB)) == DATA[offset : offset + 4 * KIB]
    assert fetched_bytes(cache) == len(DATA)
    assert cache.status()["fetch"]["readahead_bytes"] > 0
    file.close()
    assert cache.status()["fetch"]["readahead_bytes"] == 0


@pytest.mark.parametrize("in_order", [True, False])
def test_a_close_beside_a_read_that_keeps_a_block_gives_its_memory_back(
    cache: Cache, storage: FaultyStorage, monkeypatch: pytest.MonkeyPatch, in_order: bool
) -> None:
    file = opened(cache, storage, max_age=None, quota=1)
    if in_order:
        file.read(0, 64 * KIB)
    hold = FetchPool.try_hold

    def hold_while_it_is_closed(pool: FetchPool, size_bytes: int) -> bool:
        has_room = hold(pool, size_bytes)
        file.close()
        return has_room

    monkeypatch.setattr(FetchPool, "try_hold", hold_while_it_is_closed)
    offset = 64 * KIB if in_order else MIB
    assert bytes(file.read(offset, 64 * KIB)) == DATA[offset : offset + 64 * KIB]
    fetched_bytes(cache)
    # What has come is seen to by whoever fetched it.
    until(lambda: cache.status()["fetch"]["readahead_bytes"] == 0)


def test_readers_side_by_side(cache: Cache, storage: FaultyStorage) -> None:
    file = opened(cache, storage, max_age=None)
    offsets = [(number * 7_919 * KIB) % (len(DATA) - 100 * KIB) for number in range(200)]
    with ThreadPoolExecutor(8) as threads:
        for offset, data in zip(
            offsets, threads.map(lambda offset: bytes(file.read(offset, 70_000)), offsets), strict=True
        ):
            assert data == DATA[offset : offset + 70_000]
    assert fetched_bytes(cache) == len(DATA)
    file.close()


def test_a_cached_file_is_stale_once_another_version_is_known(cache: Cache, storage: FaultyStorage) -> None:
    storage.put("file", b"old")
    cache.attach("d", "faulty://x", max_age=0)
    cache.read("d/file").release()
    nodes = cache.nodes("d")
    file = nodes.open(nodes.child(ROOT_INODE, "file"))
    assert bytes(file.known(0, 10) or b"") == b"old"
    storage.put("file", b"new")
    cache.stat("d/file")
    with pytest.raises(Stale):
        file.known(0, 10)


def test_copies_of_a_disk_tier(tmp_path: Path, storage: FaultyStorage) -> None:
    with Cache(
        tmp_path / "disk", [Tier(str(tmp_path / "ssd"), 64 * MIB, "SSD")], schemes=storage.schemes()
    ) as cache:
        file = opened(cache, storage, max_age=None)
        for _ in range(2):
            for offset in (0, 5, 70_000, len(DATA) - 3):
                assert bytes(file.read(offset, 70_000)) == DATA[offset : offset + 70_000]
        assert fetched_bytes(cache) == len(DATA)
        file.close()
