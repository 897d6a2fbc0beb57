"""Large files of a load: in one piece where they can lie so, and cached block by block where not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay import errors
from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.testing.faulty import FaultyStorage

WHOLE = 12 * MIB + 5
TOO_LARGE = 17 * MIB


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage({"whole": os.urandom(WHOLE), "too large": os.urandom(TOO_LARGE)})


@pytest.fixture
def cache(tmp_path: Path, memory_path: Path, storage: FaultyStorage) -> Iterator[Cache]:
    """A cache in which a file of 16 MiB can lie in one piece."""
    tiers = [Tier(str(memory_path), 256 * MIB, "MEM")]
    with Cache(tmp_path / "cache", tiers, block_bytes=256 * KIB, schemes=storage.schemes()) as cache:
        cache.attach("d", "faulty://x", max_age=None)
        yield cache


def data_of(storage: FaultyStorage, name: str) -> bytes:
    size = storage.stat(name).size
    buffer = bytearray(size)
    with storage.read_range(name, 0, size) as body:
        body.readinto(memoryview(buffer))
    return bytes(buffer)


def is_whole(cache: Cache, name: str) -> bool:
    with cache.read(f"d/{name}") as view:
        return view.zero_copy


def test_a_file_that_can_lie_in_one_piece_does(cache: Cache, storage: FaultyStorage) -> None:
    result = cache.load("d").wait(60)
    assert result.ok
    assert result.progress.bytes_done == WHOLE + TOO_LARGE
    assert is_whole(cache, "whole")
    assert not is_whole(cache, "too large")
    for name in ("whole", "too large"):
        assert bytes(cache.read(f"d/{name}")) == data_of(storage, name)
    assert cache.load("d", verify=True).wait(60).progress.files_skipped == 2


def test_what_is_cached_already_is_copied_into_the_piece(cache: Cache, storage: FaultyStorage) -> None:
    data = data_of(storage, "whole")
    assert bytes(cache.read("d/whole", 3 * MIB, MIB)) == data[3 * MIB : 4 * MIB]
    before = storage.calls["readinto"]
    assert cache.load("d/whole").wait(60).ok
    assert is_whole(cache, "whole")
    assert bytes(cache.read("d/whole")) == data
    assert 0 < storage.calls["readinto"] - before <= 4
    assert cache.status()["counters"]["load_bytes"] == WHOLE - MIB


def test_where_most_is_cached_only_the_rest_is_fetched(cache: Cache, storage: FaultyStorage) -> None:
    cache.read("d/whole", 0, 8 * MIB).release()
    assert cache.load("d/whole").wait(60).ok
    assert not is_whole(cache, "whole")
    assert cache.status()["counters"]["load_bytes"] == WHOLE - 8 * MIB


def test_an_error_in_one_part_fails_the_file_and_is_mended_by_resume(
    cache: Cache, storage: FaultyStorage
) -> None:
    storage.script("readinto", None, errors.under_storage_error("faulty://x/whole", "HTTP 500"))
    job = cache.load("d/whole")
    result = job.wait(60)
    assert (result.state, result.progress.files_failed) == ("incomplete", 1)
    assert [each.error for each in job.results()] == ["HTTP 500"]
    assert cache.resume(job.id).wait(60).ok
    assert bytes(cache.read("d/whole")) == data_of(storage, "whole")
    assert is_whole(cache, "whole")


def test_a_large_file_that_changes_meanwhile_is_of_one_version(
    cache: Cache, tmp_path: Path, storage: FaultyStorage
) -> None:
    new = os.urandom(WHOLE)
    # One thread, so that the second part is asked for after the first has come.
    with Cache(tmp_path / "cache", schemes=storage.schemes(), fetch_threads=1) as loader:
        storage.script("readinto", lambda: storage.put("whole", new))
        result = loader.load("d/whole").wait(60)
    assert result.ok
    before = storage.calls["read_range"]
    assert bytes(cache.read("d/whole")) == new
    assert storage.calls["read_range"] == before


def test_a_stopped_load_leaves_no_half_a_file_behind(cache: Cache, storage: FaultyStorage) -> None:
    job = cache.load("d/whole", rate_limit=MIB, start=False)
    storage.script("readinto", cache.job(job.id).cancel)
    assert cache.resume(job.id).wait(60).state == "cancelled"
    assert cache.load("d/whole").wait(60).ok
    assert is_whole(cache, "whole")
    assert cache.check().ok
