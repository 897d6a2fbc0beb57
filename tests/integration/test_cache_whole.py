"""Large files: parts side by side, one contiguous view of a file that lies whole, reads meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from forebay.cache import Cache
from forebay.cache.blocks import JOIN_BYTES_MAX, PART_BYTES
from forebay.cache.pool import Kind
from forebay.config import KIB, MIB
from forebay.errors import NotFound, Stale, under_storage_error
from forebay.testing.faulty import FaultyStorage

BLOCK = 64 * KIB
WAIT_S = 30
# The test's tier has segments of 1 MiB, and takes files of up to 4 MiB whole.
WHOLE = 3 * MIB + 123
OpenCache = Callable[..., Cache]


def faulty(open_cache: OpenCache, **objects: bytes) -> tuple[Cache, FaultyStorage]:
    storage = FaultyStorage(objects)
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    cache.listdir("d")
    storage.calls.clear()
    return cache, storage


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def test_a_file_read_whole_is_one_view_without_a_copy(open_cache: OpenCache) -> None:
    data = os.urandom(WHOLE)
    cache, storage = faulty(open_cache, a=data)
    for _ in range(2):
        with cache.read("d/a") as view:
            assert view.zero_copy
            assert view == data
    assert storage.calls["read_range"] == 1
    with cache.read("d/a", 5, MIB) as part:
        assert bytes(part) == data[5 : 5 + MIB]
    buffer = bytearray(WHOLE)
    assert cache.readinto("d/a", buffer) == WHOLE
    assert buffer == data
    counters = cache.status()["counters"]
    assert counters["misses_cold"] == -(-WHOLE // BLOCK)
    assert cache.check().ok


def test_what_cannot_lie_whole_is_cached_by_blocks(open_cache: OpenCache) -> None:
    objects = {"small": os.urandom(MIB // 2), "large": os.urandom(6 * MIB)}
    cache, _ = faulty(open_cache, **objects)
    for name, data in objects.items():
        for _ in range(2):
            with cache.read(f"d/{name}") as view:
                assert view == data
                assert not view.zero_copy
    assert cache.status()["blocks"] == 8 + 96


def test_blocks_that_are_cached_are_not_moved_into_a_whole(open_cache: OpenCache) -> None:
    data = os.urandom(WHOLE)
    cache, storage = faulty(open_cache, a=data)
    for offset in range(0, WHOLE, 8 * BLOCK):
        cache.read("d/a", offset, 5 * BLOCK).release()
    with cache.read("d/a") as view:
        assert view == data
        assert not view.zero_copy
    assert storage.calls["readinto"] > 5


def test_a_whole_of_which_a_block_is_freed_meanwhile_is_given_up(open_cache: OpenCache) -> None:
    data = os.urandom(WHOLE)
    cache, storage = faulty(open_cache, a=data)
    # Half-way through, when the first blocks are in.
    storage.script("readinto", lambda: cache.free("d/a"))
    assert cache.read("d/a") == data
    assert cache.check().ok


def test_a_part_that_fails_gives_the_whole_up(open_cache: OpenCache) -> None:
    data = os.urandom(WHOLE)
    cache, storage = faulty(open_cache, a=data)
    storage.script("readinto", under_storage_error("a", "reset"))
    with pytest.raises(OSError, match="reset"):
        cache.read("d/a")
    assert cache.read("d/a") == data
    assert cache.check().ok


def test_a_file_that_changed_is_brought_in_its_new_version(open_cache: OpenCache) -> None:
    old, new = os.urandom(WHOLE), os.urandom(WHOLE)
    cache, storage = faulty(open_cache, a=old)
    storage.put("a", new)
    assert cache.read("d/a") == new
    storage.remove("a")
    cache.free("d/a")
    with pytest.raises(NotFound):
        cache.read("d/a")


def test_many_read_a_file_that_changed_in_its_new_version(open_cache: OpenCache) -> None:
    old, new = os.urandom(WHOLE), os.urandom(WHOLE)
    cache, storage = faulty(open_cache, a=old, b=old)
    storage.put("a", new)
    assert [bytes(view) for view in cache.read_many(["d/b", "d/a"])] == [old, new]
    assert cache.stat("d/a").version == storage.stat("a").version


def test_many_forget_a_file_that_vanished(open_cache: OpenCache) -> None:
    cache, storage = faulty(open_cache, a=os.urandom(WHOLE))
    storage.remove("a")
    with pytest.raises(NotFound):
        cache.read_many(["d/a"])
    with pytest.raises(NotFound):
        cache.stat("d/a")


def test_fetch_whole_is_for_one_and_others_are_told(open_cache: OpenCache) -> None:
    data = os.urandom(WHOLE)
    cache, storage = faulty(open_cache, a=data)
    runtime = cache._runtime()
    attached, path = runtime.locate("d/a")
    entry = runtime.reader.entry(attached, path)
    fetching, go = threading.Event(), threading.Event()

    def stall() -> None:
        fetching.set()
        go.wait(WAIT_S)

    storage.script("readinto", stall)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(runtime.whole.fetch, attached, entry, Kind.LOAD)
        assert fetching.wait(WAIT_S)
        assert not runtime.whole.fetch(attached, entry, Kind.LOAD)
        go.set()
        assert first.result(WAIT_S)
    assert runtime.whole.fetch(attached, entry)
    assert cache.status()["counters"]["load_bytes"] == WHOLE
    assert cache.status()["counters"]["misses_cold"] == 0
    assert storage.calls["readinto"] == 1


def test_readers_of_a_file_on_its_way_get_its_blocks(open_cache: OpenCache) -> None:
    data = os.urandom(WHOLE)
    cache, storage = faulty(open_cache, a=data)
    with ThreadPoolExecutor(8) as pool:
        views = list(pool.map(lambda _: cache.read("d/a"), range(8)))
    assert all(view == data for view in views)
    assert storage.calls["readinto"] == 1


def test_a_sequential_reader_past_a_quarter_brings_the_file_whole(open_cache: OpenCache) -> None:
    data = os.urandom(WHOLE)
    cache, _ = faulty(open_cache, a=data)
    for offset in range(0, WHOLE // 4 + BLOCK, BLOCK):
        assert bytes(cache.read("d/a", offset, BLOCK)) == data[offset : offset + BLOCK]
    runtime = cache._runtime()
    attached, path = runtime.locate("d/a")
    entry = runtime.reader.entry(attached, path)
    wait_until(lambda: runtime.whole.view(attached, entry) is not None)
    with cache.read("d/a") as view:
        assert view.zero_copy
        assert view == data


def test_reads_here_and_there_do_not(open_cache: OpenCache) -> None:
    cache, storage = faulty(open_cache, a=os.urandom(WHOLE))
    for number in (40, 3, 20, 7, 33):
        cache.read("d/a", number * BLOCK, BLOCK).release()
    assert storage.calls["read_range"] == 5
    assert cache.status()["blocks"] == 5


def test_an_open_file_read_to_the_end_leaves_it_whole_or_in_blocks(open_cache: OpenCache) -> None:
    data = os.urandom(WHOLE)
    cache, _ = faulty(open_cache, a=data)
    with cache.open("d/a") as file:
        found = b"".join(iter(lambda: file.read(BLOCK // 2), b""))
    assert found == data
    assert cache.read("d/a") == data
    assert cache.check().ok


def test_adjacent_misses_are_joined_and_long_ones_cut(open_cache: OpenCache) -> None:
    storage = FaultyStorage({"joined": bytes(8 * MIB), "cut": bytes(24 * MIB)})
    cache = open_cache(schemes=storage.schemes(), block_bytes=MIB)
    cache.attach("d", "faulty://x", max_age=None)
    cache.listdir("d")
    assert len(cache.read("d/joined")) == 8 * MIB <= JOIN_BYTES_MAX
    assert storage.calls["read_range"] == 1
    assert len(cache.read("d/cut")) == 24 * MIB
    assert storage.calls["read_range"] == 1 + 24 * MIB // PART_BYTES


def test_hits_between_misses_part_them(open_cache: OpenCache) -> None:
    data = os.urandom(10 * BLOCK)
    cache, storage = faulty(open_cache, a=data)
    for number in (2, 5):
        cache.read("d/a", number * BLOCK, 1).release()
    storage.calls.clear()
    assert cache.read("d/a") == data
    assert storage.calls["read_range"] == 3


def test_versions_are_never_mixed_in_a_large_read(open_cache: OpenCache) -> None:
    old, new = b"o" * 20 * MIB, b"n" * 20 * MIB
    cache, storage = faulty(open_cache, a=old)
    storage.script("readinto", None, None, lambda: storage.put("a", new))
    with cache.read("d/a") as view:
        assert bytes(view) in (old, new)
    storage.put("a", old)
    storage.script("read_range", None, None, *[lambda: storage.put("a", new)] * 20)
    cache.free("d/a")
    with pytest.raises(Stale):
        cache.read("d/a")
