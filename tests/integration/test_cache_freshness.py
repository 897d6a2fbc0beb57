"""The cache over an under storage that fails by script: freshness, errors, changes, single flight."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.cache.blocks import PART_BYTES
from forebay.config import KIB
from forebay.errors import NotFound, Stale, under_storage_error
from forebay.testing.clock import ManualClock
from forebay.testing.faulty import FaultyStorage
from tests.integration._sites import OpenCache, counters

BLOCK = 64 * KIB
WAIT_S = 30


def faulty(
    open_cache: OpenCache, max_age: float | None = None, **objects: bytes
) -> tuple[Cache, FaultyStorage, ManualClock]:
    storage, clock = FaultyStorage(objects), ManualClock()
    cache = open_cache(schemes=storage.schemes(), clock=clock)
    cache.attach("d", "faulty://x", max_age=max_age)
    storage.calls.clear()
    return cache, storage, clock


def test_an_unknown_object_takes_one_request(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, a=b"bytes")
    assert bytes(cache.read("d/a")) == b"bytes"
    assert storage.calls == {"read_range": 1, "readinto": 1}
    assert bytes(cache.read("d/a")) == b"bytes"
    assert storage.calls == {"read_range": 1, "readinto": 1}


def test_a_listing_saves_the_stats(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, a=b"1", b=b"22")
    assert [status.size for status in cache.scandir("d")] == [1, 2]
    assert cache.stat("d/b").size == 2
    assert cache.listdir("d") == ["a", "b"]
    assert storage.calls == {"list": 1}


def test_immutable_is_asked_once(open_cache: OpenCache) -> None:
    cache, storage, clock = faulty(open_cache, None, a=b"old")
    cache.read("d/a").release()
    storage.put("a", b"new")
    clock.advance(1e9)
    assert bytes(cache.read("d/a")) == b"old"
    assert storage.calls["stat"] == 0


def test_max_age_in_seconds(open_cache: OpenCache) -> None:
    cache, storage, clock = faulty(open_cache, 60, a=b"old")
    assert bytes(cache.read("d/a")) == b"old"
    storage.put("a", b"new")
    clock.advance(60)
    assert bytes(cache.read("d/a")) == b"old"
    clock.advance(0.001)
    assert bytes(cache.read("d/a")) == b"new"
    clock.advance(61)
    assert bytes(cache.read("d/a")) == b"new"
    assert storage.calls == {"read_range": 2, "readinto": 2, "stat": 2}


def test_max_age_zero_is_always_checked(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, 0, a=b"old")
    assert bytes(cache.read("d/a")) == b"old"
    storage.put("a", b"new")
    assert bytes(cache.read("d/a")) == b"new"
    storage.remove("a")
    with pytest.raises(NotFound):
        cache.read("d/a")


def test_a_listing_ages_too(open_cache: OpenCache) -> None:
    cache, storage, clock = faulty(open_cache, 60, a=b"1", b=b"2")
    assert cache.listdir("d") == ["a", "b"]
    storage.remove("a")
    storage.put("c", b"3")
    assert cache.listdir("d") == ["a", "b"]
    clock.advance(61)
    assert cache.listdir("d") == ["b", "c"]
    assert cache.listdir("d") == ["b", "c"]
    assert storage.calls["list"] == 2


def test_a_failed_stat_is_raised_and_forgotten(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, 0, a=b"1")
    cache.read("d/a").release()
    storage.script(
        "stat", under_storage_error("a", "HTTP 503"), PermissionError(13, "no", "a"), TimeoutError()
    )
    for kind in (OSError, PermissionError, TimeoutError):
        with pytest.raises(kind) as caught:
            cache.read("d/a")
        assert not isinstance(caught.value, FileNotFoundError)
    assert bytes(cache.read("d/a")) == b"1"


def test_a_failed_listing_is_raised_and_forgotten(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, None, a=b"1")
    storage.script("list", under_storage_error("", "HTTP 500"))
    with pytest.raises(OSError, match="HTTP 500"):
        cache.listdir("d")
    assert cache.listdir("d") == ["a"]


def test_absence_is_not_remembered(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, None)
    assert not cache.exists("d/a")
    storage.put("a", b"1")
    assert cache.exists("d/a")
    assert bytes(cache.read("d/a")) == b"1"


def test_a_failed_fetch_is_raised_and_the_next_works(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, None, a=b"1", b=b"2" * 3 * BLOCK)
    storage.script("readinto", under_storage_error("a", "reset"))
    with pytest.raises(OSError, match="reset"):
        cache.read("d/a")
    assert bytes(cache.read("d/a")) == b"1"
    cache.listdir("d")
    storage.script("read_range", under_storage_error("b", "reset"))
    with pytest.raises(OSError, match="reset"):
        cache.read("d/b")
    assert bytes(cache.read("d/b")) == b"2" * 3 * BLOCK


def test_a_change_during_a_read_gives_one_version(open_cache: OpenCache) -> None:
    # More than one request brings: the first tells what the object is, and the change comes before the next.
    old, new = b"o" * (PART_BYTES + BLOCK), b"n" * (PART_BYTES + 2 * BLOCK)
    cache, storage, _ = faulty(open_cache, None, a=old)
    storage.script("read_range", None, lambda: storage.put("a", new))
    assert bytes(cache.read("d/a")) == new
    assert storage.calls["stat"] == 1


def test_an_object_that_keeps_changing_is_stale(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, None, a=b"x" * 3 * BLOCK)
    cache.listdir("d")
    storage.put("a", b"y" * 3 * BLOCK)
    # It is asked for in the old version, then in the one that has come meanwhile.
    storage.script("read_range", None, lambda: storage.put("a", b"z" * 3 * BLOCK))
    with pytest.raises(Stale, match="changed"):
        cache.read("d/a")


def test_of_answers_asked_for_at_once_the_one_asked_for_last_is_kept(open_cache: OpenCache) -> None:
    """Which of them the storage gave first nobody can tell: it may be the older version that is kept."""
    cache, storage, clock = faulty(open_cache, None, a=b"known")
    cache.listdir("d")
    storage.put("a", b"")
    asking, go = threading.Event(), threading.Event()

    def stall() -> None:
        asking.set()
        assert go.wait(WAIT_S)

    # 1. Both know a version that is no more; the first asks, and the storage has yet to look.
    storage.script("stat", stall)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: bytes(cache.read("d/a")))
        assert asking.wait(WAIT_S)
        # 2. The second asks later, and is answered before the object changes once more.
        clock.advance(1)
        assert bytes(cache.read("d/a")) == b""
        storage.put("a", b"newest")
        # 3. The first is answered now, to what it asked earlier.
        go.set()
        assert first.result(WAIT_S) == b"newest"
    assert bytes(cache.read("d/a")) == b""
    cache.sync("d/a")
    assert bytes(cache.read("d/a")) == b"newest"


def test_views_begin_anew_though_nobody_could_say_what_changed(open_cache: OpenCache) -> None:
    new = b"n" * 3 * BLOCK
    cache, storage, _ = faulty(open_cache, None, a=b"o" * 3 * BLOCK)
    cache.listdir("d")
    storage.put("a", new)
    storage.script("stat", under_storage_error("a", "HTTP 503"))
    with pytest.raises(Stale):
        list(cache.views("d/a"))
    assert b"".join(bytes(view) for view in cache.views("d/a")) == new


def test_one_that_vanished_is_not_found_and_forgotten(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, None, a=b"1")
    cache.listdir("d")
    storage.remove("a")
    with pytest.raises(NotFound):
        cache.read("d/a")
    storage.put("a", b"22")
    assert bytes(cache.read("d/a")) == b"22"


def test_many_threads_that_miss_fetch_once(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, None, a=b"1" * 100, b=b"2" * BLOCK)
    cache.stat("d/b")
    both_wait = threading.Barrier(2)
    storage.script("readinto", both_wait.wait, both_wait.wait)
    with ThreadPoolExecutor(16) as pool:
        views = pool.map(cache.read, ["d/a", "d/b"] * 8)
        assert [bytes(view) for view in views] == [b"1" * 100, b"2" * BLOCK] * 8
    assert storage.calls["readinto"] == 2


def test_a_waiter_takes_over_from_a_fetch_that_fails(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, None, a=b"1")
    cache.stat("d/a")
    fetching, fail = threading.Event(), threading.Event()

    def first() -> None:
        fetching.set()
        fail.wait(WAIT_S)
        raise under_storage_error("a", "reset")

    storage.script("readinto", first)
    with ThreadPoolExecutor(2) as pool:
        loser = pool.submit(cache.read, "d/a")
        assert fetching.wait(WAIT_S)
        winner = pool.submit(cache.read, "d/a")
        fail.set()
        assert bytes(winner.result(WAIT_S)) == b"1"
        assert isinstance(loser.exception(WAIT_S), OSError)


def test_what_is_not_admitted_is_served_all_the_same(open_cache: OpenCache) -> None:
    objects = {f"o{number}": bytes([number % 251]) * BLOCK for number in range(1_500)}
    cache, storage, _ = faulty(open_cache, None, **objects)
    for name, data in objects.items():
        with cache.read(f"d/{name}") as view:
            assert bytes(view) == data
    assert counters(cache)["not_admitted"] > 0
    assert storage.calls["read_range"] == len(objects)


def test_entries_outlive_a_process_and_blocks_their_entries(open_cache: OpenCache, tmp_path: Path) -> None:
    cache, storage, _ = faulty(open_cache, None, a=b"1" * 100)
    cache.read("d/a").release()
    cache.close()
    cache = open_cache(schemes=storage.schemes())
    assert bytes(cache.read("d/a")) == b"1" * 100
    assert storage.calls == {"read_range": 1, "readinto": 1}
    cache.close()
    (entries,) = (tmp_path / "cache/v1/meta").glob("entries-*.lmdb")
    entries.rename(entries.with_name("entries-of-an-earlier-boot.lmdb"))
    cache = open_cache(schemes=storage.schemes())
    assert bytes(cache.read("d/a")) == b"1" * 100
    # The object is asked for once more, but its bytes are not taken again.
    assert storage.calls == {"read_range": 2, "readinto": 1}
    assert [path.name for path in entries.parent.glob("entries-*.lmdb")] == [entries.name]
