"""Feeding the pool: batches, bounds, what is put off or comes back, and what ends a run."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from forebay.cache.loads.feed import Feeder
from forebay.cache.loads.file import FileLoader, LoadItem, LoadStopped
from forebay.cache.loads.throttle import NotNow
from forebay.cache.pool import FetchLimits, FetchPool
from forebay.config import MIB
from forebay.meta import Entry


class FakeLoader:
    """What a feeder needs of a loader: does with each file what the test says, and counts."""

    def __init__(self, act: Callable[[LoadItem], LoadItem | None]) -> None:
        self.stop = threading.Event()
        self.loaded: Counter[str] = Counter()
        self._act = act
        self._lock = threading.Lock()

    def check_stopped(self) -> None:
        if self.stop.is_set():
            raise LoadStopped

    def declines(self, item: LoadItem) -> bool:
        return False

    def load(self, item: LoadItem, *, permitted: bool) -> LoadItem | None:
        assert permitted is (item.entry is not None)
        again = self._act(item)
        with self._lock:
            self.loaded[item.path] += 1
        return again


@pytest.fixture
def pool() -> Iterator[FetchPool]:
    pool = FetchPool(FetchLimits(fetch_threads=8))
    yield pool
    pool.close()


def feed(pool: FetchPool, loader: FakeLoader, pages: Iterator[list[LoadItem]]) -> None:
    Feeder(pool, cast("FileLoader", loader), dry_run=False, stop=loader.stop).run(pages)


def items(count: int, size: int = 10) -> list[LoadItem]:
    return [
        LoadItem(str(number), Entry(str(number), size, 0, "v", False, 0) if size else None)
        for number in range(count)
    ]


def test_every_file_is_loaded_once(pool: FetchPool) -> None:
    loader = FakeLoader(lambda item: None)
    feed(pool, loader, iter([items(1_000)[:300], [], items(1_000)[300:]]))
    assert loader.loaded == Counter(map(str, range(1_000)))
    assert not loader.stop.is_set()


def test_files_of_unknown_size_take_their_own_permits(pool: FetchPool) -> None:
    loader = FakeLoader(lambda item: None)
    feed(pool, loader, iter([items(100, 0)]))
    assert sum(loader.loaded.values()) == 100


def test_what_is_taken_ahead_is_bounded(pool: FetchPool) -> None:
    go_on = threading.Event()
    taken = 0

    def pages() -> Iterator[list[LoadItem]]:
        nonlocal taken
        for item in items(5_000):
            taken += 1
            yield [item]

    def wait(item: LoadItem) -> None:
        go_on.wait(60)

    loader = FakeLoader(wait)
    thread = threading.Thread(target=feed, args=(pool, loader, pages()))
    thread.start()
    while taken < 33:
        thread.join(0.01)
    thread.join(0.3)
    # A task for each, and the one that waits for room.
    assert taken == 33
    go_on.set()
    thread.join()
    assert sum(loader.loaded.values()) == 5_000


def test_what_may_not_go_on_now_is_put_off_with_the_rest_of_its_batch(pool: FetchPool) -> None:
    refused: Counter[str] = Counter()

    def act(item: LoadItem) -> None:
        if int(item.path) % 5 == 0 and refused[item.path] < 3:
            refused[item.path] += 1
            raise NotNow(0.001)

    loader = FakeLoader(act)
    feed(pool, loader, iter([items(100)]))
    assert loader.loaded == Counter(map(str, range(100)))
    assert set(refused.values()) == {3}


def test_what_comes_back_is_loaded_again(pool: FetchPool) -> None:
    tried: Counter[str] = Counter()

    def act(item: LoadItem) -> LoadItem | None:
        tried[item.path] += 1
        return item if tried[item.path] == 1 else None

    loader = FakeLoader(act)
    feed(pool, loader, iter([items(50)]))
    assert set(loader.loaded.values()) == {2}


def test_an_error_of_a_task_or_of_the_pages_ends_the_run(pool: FetchPool) -> None:
    def fail(item: LoadItem) -> None:
        if item.path == "30":
            raise ZeroDivisionError("broken")

    loader = FakeLoader(fail)
    with pytest.raises(ZeroDivisionError, match="broken"):
        feed(pool, loader, iter([[item] for item in items(10_000)]))
    assert sum(loader.loaded.values()) < 10_000

    def pages() -> Iterator[list[LoadItem]]:
        yield items(20)
        raise PermissionError("no")

    loader = FakeLoader(lambda item: None)
    with pytest.raises(PermissionError):
        feed(pool, loader, pages())
    assert loader.stop.is_set()


def test_a_stop_ends_the_run(pool: FetchPool) -> None:
    def stop_at_30(item: LoadItem) -> None:
        if item.path == "30":
            loader.stop.set()

    loader = FakeLoader(stop_at_30)
    with pytest.raises(LoadStopped):
        feed(pool, loader, iter([[item] for item in items(10_000)]))
    assert sum(loader.loaded.values()) < 10_000


def test_a_pool_that_closes_stops_the_run(pool: FetchPool) -> None:
    loader = FakeLoader(lambda item: None)
    pool.close()
    with pytest.raises(LoadStopped):
        feed(pool, loader, iter([items(100)]))
    assert not loader.loaded


def test_large_files_go_in_parts(pool: FetchPool) -> None:
    brought: Counter[tuple[int, int]] = Counter()
    settled: list[str] = []

    class Large(FakeLoader):
        def begin_whole(self, entry: Entry) -> None:
            return None

        def missing(self, entry: Entry, offset: int, end: int) -> list[tuple[int, int]]:
            return [(offset, end)]

        def bring(self, missing: list[tuple[int, int]], *, permitted: bool, filling: None) -> bool:
            brought[missing[0]] += 1
            if brought[missing[0]] == 1:
                raise NotNow(0.0)
            return True

        def settle(self, item: LoadItem, outcome: str) -> None:
            settled.append(outcome)

    loader = Large(lambda item: None)
    feed(pool, loader, iter([items(1, 20 * MIB)]))
    assert brought == Counter({(0, 8 * MIB): 2, (8 * MIB, 16 * MIB): 2, (16 * MIB, 20 * MIB): 2})
    assert settled == ["done"]
