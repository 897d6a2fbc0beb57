"""What `sync` and `free` promise: they did what they say, or raise; what was freed is believed no more."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import lmdb
import pytest

from forebay.cache import Cache
from forebay.cache.paths import block_key
from forebay.cache.usage import Usage
from forebay.config import KIB, MIB, Tier
from forebay.errors import NotFound, StoreBusy
from forebay.meta import Entry
from forebay.testing.faulty import FaultyStorage
from tests.integration._sites import OpenCache

TREE = {"a": b"1", "sub/b": b"22", "sub/deep/c": b"333"}
HUGE = 5 << 40

COMMANDS: dict[str, Callable[[Cache], object]] = {
    "sync all": lambda cache: cache.sync("d"),
    "sync one": lambda cache: cache.sync("d/a"),
    "free all": lambda cache: cache.free("d", metadata=True),
    "free part": lambda cache: cache.free("d/sub", metadata=True),
    "free one": lambda cache: cache.free("d/a", data=False, metadata=True),
}


def attached(open_cache: OpenCache, negative_ttl: float = 0) -> tuple[Cache, FaultyStorage]:
    storage = FaultyStorage(TREE)
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None, negative_ttl=negative_ttl)
    return cache, storage


@contextmanager
def being_written(cache: Cache) -> Iterator[None]:
    """Hold the metadata as a writer does that is stopped in the middle."""
    with cache._runtime().metadata.entries._environment.writing():
        yield


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
def test_a_command_raises_what_it_could_not_write(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch, command: Callable[[Cache], object]
) -> None:
    cache, storage = attached(open_cache)
    cache.sync("d")
    with being_written(cache), monkeypatch.context() as patch:
        patch.setattr("forebay.meta.entries._PATIENCE_S", 0.02)
        with pytest.raises(StoreBusy, match=r"entries-.*\.lmdb.*writing"):
            command(cache)
        # Who reads goes on without.
        storage.put("new", b"4444")
        assert bytes(cache.read("d/new")) == b"4444"
    command(cache)
    cache.sync("d")
    assert cache.listdir("d") == ["a", "new", "sub"]


def test_a_command_raises_what_lmdb_says(open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, _ = attached(open_cache)
    environment = cache._runtime().metadata.entries._environment

    def fail(*_: object, is_hasty: bool) -> None:
        raise lmdb.MapFullError("the map is full")

    with monkeypatch.context() as patch:
        patch.setattr(type(environment), "writing", fail)
        for command in COMMANDS.values():
            with pytest.raises(OSError, match=r"the map is full.*entries-.*\.lmdb"):
                command(cache)
        assert bytes(cache.read("d/a")) == b"1"


def test_a_cache_that_is_read_only_says_so(open_cache: OpenCache) -> None:
    _, storage = attached(open_cache)
    cache = open_cache(schemes=storage.schemes(), read_only=True)
    for command in COMMANDS.values():
        with pytest.raises(PermissionError, match="read-only"):
            command(cache)
    assert bytes(cache.read("d/a")) == b"1"


@pytest.mark.parametrize("freed", ["d", "d/sub", "d/sub/none", "d/nowhere"])
def test_free_metadata_ends_what_was_absent(open_cache: OpenCache, freed: str) -> None:
    cache, storage = attached(open_cache, negative_ttl=1_000)
    for path in ("sub/none", "nowhere/none"):
        assert not cache.exists(f"d/{path}")
        storage.put(path, b"here")
        assert not cache.exists(f"d/{path}")
    cache.free(freed, data=False, metadata=True)
    absent = f"{freed}/none" if freed == "d/nowhere" else "d/sub/none"
    assert bytes(cache.read(absent)) == b"here"


def test_free_metadata_leaves_what_is_absent_in_other_datasets(open_cache: OpenCache) -> None:
    cache, storage = attached(open_cache, negative_ttl=1_000)
    cache.attach("other", "faulty://y", max_age=None, negative_ttl=1_000)
    assert not cache.exists("other/none")
    storage.put("none", b"here")
    cache.free("d", metadata=True)
    cache.free("d/sub", metadata=True)
    with pytest.raises(NotFound):
        cache.read("other/none")


def test_free_metadata_makes_no_version_stale(open_cache: OpenCache) -> None:
    cache, storage = attached(open_cache)
    cache.sync("d")
    for path in TREE:
        cache.read(f"d/{path}").release()
    cache.free("d/sub", data=False, metadata=True)
    assert cache._runtime().metadata.entries.stale(10) == []
    storage.calls.clear()
    assert bytes(cache.read("d/sub/deep/c")) == b"333"
    assert storage.calls["readinto"] == 0


@contextmanager
def knowing_of_5_tib(tmp_path: Path, memory_path: Path, block_bytes: int) -> Iterator[tuple[Cache, int]]:
    """Open a cache that knows of an object ``huge`` of that size; also gives the dataset's id."""
    tiers = [Tier(str(memory_path), 128 * MIB, "MEM")]
    schemes = FaultyStorage().schemes()
    with Cache(tmp_path / "cache", tiers, block_bytes=block_bytes, schemes=schemes) as cache:
        dataset = cache.attach("d", "faulty://x", max_age=None)
        cache._runtime().metadata.entries.put(dataset.id, [Entry("huge", HUGE, 0, "v", False, 1)])
        yield cache, dataset.id


@pytest.mark.timeout(60)
def test_an_object_that_claims_5_tib_is_counted_pinned_and_freed(tmp_path: Path, memory_path: Path) -> None:
    block_bytes = 4 * MIB
    numbers = (0, 9_000, HUGE // block_bytes - 1)
    with knowing_of_5_tib(tmp_path, memory_path, block_bytes) as (cache, dataset_id):
        keys = [block_key(dataset_id, "huge", "v", number, block_bytes) for number in numbers]
        for key in keys:
            assert cache._store.put(key, b"some bytes", dataset=dataset_id)
        assert cache.usage("d/huge") == Usage(1, HUGE, len(numbers) * block_bytes)
        assert cache.pin("d/huge") == cache.ttl("d/huge", 1_000) == cache.unpin("d/huge") == len(numbers)
        cache.free("d/huge")
        assert not any(map(cache._store.contains, keys))
        assert cache.usage("d/huge") == Usage(1, HUGE, 0)


class AlarmError(Exception):
    """Raised by the handler of the test's signal."""


def raise_alarm(_number: int, _frame: FrameType | None) -> None:
    raise AlarmError


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", [Cache.usage, Cache.free, Cache.pin])
def test_going_through_5_tib_can_be_interrupted(
    tmp_path: Path, memory_path: Path, command: Callable[[Cache, str], object]
) -> None:
    # 84 million blocks take far more than the twentieth of a second of processor time.
    with knowing_of_5_tib(tmp_path, memory_path, 64 * KIB) as (cache, _):
        before = signal.signal(signal.SIGVTALRM, raise_alarm)
        try:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.05)
            with pytest.raises(AlarmError):
                command(cache, "d/huge")
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)
