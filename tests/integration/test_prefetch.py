"""Prefetch: an iterator that keeps ahead of its reader, and gives and raises what reading by itself would."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.cache.prefetch import PATHS_AHEAD_MAX
from forebay.config import KIB, MIB, Tier
from forebay.errors import Closed, ConfigError, NotAttached, NotFound, UnderStorageError
from forebay.testing.faulty import FaultyStorage
from tests.faults._child import Child, wait_until
from tests.integration._sites import OpenCache, counters

BLOCK = 64 * KIB
COUNT = 40
SIZES = {f"{number:02}": 1_000 + number for number in range(COUNT)}
LARGE = {"empty": 0, "one": 1, "block": BLOCK, "block+1": BLOCK + 1, "blocks": 5 * BLOCK + 123}
WAIT_S = 60


class CountingStorage(FaultyStorage):
    """Notes which objects are read; some are held up, or fail the first time."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(objects)
        self.read: list[str] = []
        self.held: dict[str, threading.Event] = {}
        self.failing_once: set[str] = set()

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> Any:
        self.read.append(path)
        if (event := self.held.get(path)) is not None:
            assert event.wait(WAIT_S)
        if path in self.failing_once:
            self.failing_once.remove(path)
            raise UnderStorageError(errno.EIO, "not now", path)
        return super().read_range(path, offset, length, version)


@pytest.fixture
def objects() -> dict[str, bytes]:
    return {name: os.urandom(size) for name, size in (SIZES | LARGE).items()}


@pytest.fixture
def storage(objects: dict[str, bytes]) -> CountingStorage:
    return CountingStorage(objects)


@pytest.fixture
def open_site(open_cache: OpenCache, storage: CountingStorage) -> Callable[..., Cache]:
    """Open a cache with the storage attached as ``d``."""

    def open_one(**options: Any) -> Cache:
        max_age = options.pop("max_age", None)
        cache = open_cache(schemes=storage.schemes(), **options)
        cache.attach("d", "faulty://x", max_age=max_age)
        return cache

    return open_one


def paths_of(names: Any) -> list[str]:
    return [f"d/{name}" for name in names]


def know_all(cache: Cache) -> None:
    """Let the cache know all objects, and none of their bytes."""
    cache.load("d", metadata_only=True, wait=True)


def budget_is_back(cache: Cache) -> bool:
    fetch = cache.status()["fetch"]
    return not (fetch["readahead_bytes"] or fetch["in_flight"] or fetch["queued"])


def wait_for_the_budget(cache: Cache) -> None:
    """See that nothing is set aside; a thread of the pool may have yet to find that it has nothing to do."""
    assert cache.status()["fetch"]["readahead_bytes"] == 0
    wait_until(lambda: budget_is_back(cache), "nothing is queued any more")


@pytest.mark.parametrize("known", [True, False])
def test_all_sizes_come_in_order_cold_and_warm(
    open_site: Callable[..., Cache], storage: CountingStorage, objects: dict[str, bytes], known: bool
) -> None:
    cache = open_site()
    if known:
        know_all(cache)
    names = [*LARGE, *SIZES, *reversed(LARGE)]
    for _ in range(2):
        found = [(path, bytes(view)) for path, view in cache.prefetch(paths_of(names))]
        assert found == [(f"d/{name}", objects[name]) for name in names]
    # Each byte once, however it was found.
    assert counters(cache)["source_bytes"] == sum(map(len, objects.values()))
    assert storage.calls["stat"] <= 1  # that of attach
    wait_for_the_budget(cache)


def test_it_runs_ahead_of_the_reader(open_site: Callable[..., Cache], storage: CountingStorage) -> None:
    cache = open_site()
    know_all(cache)
    storage.held["00"] = threading.Event()
    with cache.prefetch(paths_of(SIZES)) as ahead:
        answers: list[str] = []
        reader = threading.Thread(target=lambda: answers.append(next(ahead)[0]))
        reader.start()
        # The reader waits for the first object, and others are fetched meanwhile.
        wait_until(lambda: len(storage.read) == COUNT, "the objects behind the first are fetched")
        assert not answers
        storage.held["00"].set()
        reader.join(WAIT_S)
        assert answers == ["d/00"]


def test_an_endless_iterable_is_pulled_as_far_as_there_is_room(open_site: Callable[..., Cache]) -> None:
    cache = open_site()
    pulled = itertools.count()

    def endless() -> Iterator[str]:
        for name in itertools.cycle(SIZES):
            next(pulled)
            yield f"d/{name}"

    with cache.prefetch(endless(), window_bytes=20_000) as ahead:
        for number in range(500):
            next(ahead)
            # What is cached takes no room of the window, so only the number of paths ahead is bounded.
            assert next(pulled) <= 2 * (number + 1) + PATHS_AHEAD_MAX
    wait_for_the_budget(cache)


@pytest.mark.parametrize("known", [True, False])
def test_the_window_is_kept(open_site: Callable[..., Cache], known: bool) -> None:
    cache = open_site()
    if known:
        know_all(cache)
    window = 3 * BLOCK
    with cache.prefetch(paths_of([*SIZES, *LARGE]), window_bytes=window) as ahead:
        for _ in ahead:
            assert cache.status()["fetch"]["readahead_bytes"] <= window


@pytest.mark.parametrize("window", [0, 1, 1_010])
def test_what_the_window_has_no_room_for_is_read_in_its_turn(
    open_site: Callable[..., Cache], objects: dict[str, bytes], window: int
) -> None:
    cache = open_site()
    found = {path: bytes(view) for path, view in cache.prefetch(paths_of(objects), window_bytes=window)}
    assert found == {f"d/{name}": data for name, data in objects.items()}


def test_a_budget_that_others_have_used_up_keeps_nobody_waiting(
    open_site: Callable[..., Cache], objects: dict[str, bytes]
) -> None:
    cache = open_site(fetch_memory=MIB)
    know_all(cache)
    pool = cache._runtime().pool
    assert pool.try_hold(MIB)
    found = {path: bytes(view) for path, view in cache.prefetch(paths_of(objects))}
    assert found == {f"d/{name}": data for name, data in objects.items()}
    pool.unhold(MIB)


@pytest.mark.parametrize("known", [True, False])
def test_what_finds_no_room_in_the_store_is_fetched_once_all_the_same(
    tmp_path: Path, memory_path: Path, storage: CountingStorage, objects: dict[str, bytes], known: bool
) -> None:
    tiers = [Tier(str(memory_path), 4 * MIB, "MEM")]
    storage.put("filler", os.urandom(8 * MIB))
    with Cache(tmp_path / "cache", tiers, block_bytes=BLOCK, schemes=storage.schemes()) as cache:
        cache.attach("d", "faulty://x", max_age=None)
        for view in cache.views("d/filler"):
            view.release()
        if known:
            know_all(cache)
        before = counters(cache)
        found = {path: bytes(view) for path, view in cache.prefetch(paths_of(objects))}
        assert found == {f"d/{name}": data for name, data in objects.items()}
        after = counters(cache)
        assert after["admitted"] - before["admitted"] < len(objects)
        assert after["source_bytes"] - before["source_bytes"] == sum(map(len, objects.values()))
        wait_for_the_budget(cache)


def test_an_object_of_which_a_part_found_room_is_put_together(
    open_site: Callable[..., Cache], objects: dict[str, bytes]
) -> None:
    cache = open_site()
    cache.set_quota("d", 2 * BLOCK)
    ((path, view),) = cache.prefetch(["d/blocks"])
    assert (path, bytes(view)) == ("d/blocks", objects["blocks"])
    assert 0 < counters(cache)["admitted"] < len(objects["blocks"]) / BLOCK


def test_an_error_comes_where_its_path_stands_and_is_of_that_path_alone(
    open_site: Callable[..., Cache], objects: dict[str, bytes]
) -> None:
    cache = open_site()
    names = ["00", "absent", "01", "../x", "", "02"]
    ahead = cache.prefetch([*paths_of(names), "e/x", 7, "d/03"])  # type: ignore[list-item]
    outcomes: list[object] = []
    while True:
        try:
            outcomes.append(bytes(next(ahead)[1]))
        except StopIteration:
            break
        except (OSError, ValueError, TypeError, LookupError) as error:
            outcomes.append(type(error))
    assert outcomes == [
        objects["00"],
        NotFound,
        objects["01"],
        ValueError,
        IsADirectoryError,
        objects["02"],
        NotAttached,
        TypeError,
        objects["03"],
    ]


def test_a_failure_ahead_that_has_passed_by_then_is_not_told(
    open_site: Callable[..., Cache], storage: CountingStorage, objects: dict[str, bytes]
) -> None:
    cache = open_site()
    know_all(cache)
    storage.failing_once |= SIZES.keys()

    def until_all_have_failed() -> Iterator[str]:
        yield from paths_of(SIZES)
        # A reader who came first would be told of a failure of his own.
        wait_until(lambda: not storage.failing_once, "each has failed")

    found = [bytes(view) for _, view in cache.prefetch(until_all_have_failed())]
    assert found == [objects[name] for name in SIZES]
    wait_for_the_budget(cache)


def test_an_error_of_the_iterable_comes_behind_what_it_gave(open_site: Callable[..., Cache]) -> None:
    cache = open_site()

    def failing() -> Iterator[str]:
        yield from paths_of(["00", "01", "02"])
        raise RuntimeError("no more")

    ahead = cache.prefetch(failing())
    assert [path for path, _ in itertools.islice(ahead, 3)] == paths_of(["00", "01", "02"])
    with pytest.raises(RuntimeError, match="no more"):
        next(ahead)
    assert list(ahead) == []


def test_arguments_that_make_no_sense(open_site: Callable[..., Cache]) -> None:
    cache = open_site()
    with pytest.raises(TypeError, match=r"not the one path 'd/00'"):
        cache.prefetch("d/00")
    with pytest.raises(TypeError):
        cache.prefetch(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="window_bytes"):
        cache.prefetch([], window_bytes="much")


@pytest.mark.parametrize("how", ["close", "with", "left", "dropped"])
def test_ending_early_gives_everything_back(
    open_site: Callable[..., Cache], storage: CountingStorage, how: str
) -> None:
    cache = open_site(fetch_threads=2)
    know_all(cache)
    storage.held["05"] = storage.held["06"] = threading.Event()
    if how == "left":
        for _ in cache.prefetch(paths_of(SIZES)):
            break
    else:
        ahead = cache.prefetch(paths_of(SIZES))
        next(ahead)
        if how == "close":
            ahead.close()
            ahead.close()
            assert list(ahead) == []
        elif how == "with":
            with ahead:
                pass
        del ahead
    gc.collect()
    assert cache.status()["fetch"]["readahead_bytes"] == 0
    # What is under way ends by itself; what was not begun never is.
    storage.held["05"].set()
    wait_until(lambda: budget_is_back(cache), "the requests under way end")
    assert len(storage.read) < COUNT


def test_two_iterators_of_the_same_objects_fetch_them_once(
    open_site: Callable[..., Cache], objects: dict[str, bytes]
) -> None:
    cache = open_site()
    know_all(cache)
    for one, other in zip(
        cache.prefetch(paths_of(SIZES)), cache.prefetch(paths_of(reversed(SIZES))), strict=True
    ):
        assert bytes(one[1]) == objects[one[0][2:]]
        assert bytes(other[1]) == objects[other[0][2:]]
    assert counters(cache)["source_bytes"] == sum(SIZES.values())


def test_an_object_that_changed_since_it_was_fetched_is_read_anew(
    open_site: Callable[..., Cache], storage: CountingStorage, objects: dict[str, bytes]
) -> None:
    cache = open_site(max_age=3600)
    know_all(cache)
    ahead = cache.prefetch(paths_of(["00", "01", "02"]))
    assert bytes(next(ahead)[1]) == objects["00"]
    wait_until(lambda: "01" in storage.read, "the next one is fetched ahead")
    storage.put("01", b"another one")
    storage.remove("02")
    assert cache.sync("d/01").changed == 1
    assert cache.sync("d/02").removed == 1
    assert bytes(next(ahead)[1]) == b"another one"
    with pytest.raises(NotFound):
        next(ahead)


def test_without_an_age_each_object_is_asked_for_when_its_turn_comes(
    open_site: Callable[..., Cache], storage: CountingStorage, objects: dict[str, bytes]
) -> None:
    cache = open_site(max_age=0)
    ahead = cache.prefetch(paths_of(["00", "01"]))
    assert bytes(next(ahead)[1]) == objects["00"]
    storage.put("01", b"another one")
    assert bytes(next(ahead)[1]) == b"another one"


def test_a_dataset_that_goes_meanwhile(open_site: Callable[..., Cache]) -> None:
    cache = open_site()
    ahead = cache.prefetch(paths_of(SIZES))
    next(ahead)
    cache.detach("d")
    with pytest.raises(NotAttached):
        next(ahead)


def test_a_version_that_is_switched_meanwhile(
    open_site: Callable[..., Cache], storage: CountingStorage, objects: dict[str, bytes]
) -> None:
    cache = open_site()
    cache.create_manifest("d", "v1", use=True)
    ahead = cache.prefetch(paths_of(["00", "01"]))
    assert bytes(next(ahead)[1]) == objects["00"]
    storage.put("01", b"another one")
    cache.sync("d/01")
    cache.create_manifest("d", "v2", use=True)
    assert bytes(next(ahead)[1]) == b"another one"
    assert [path for path, _ in cache.prefetch(["d@v2/01"])] == ["d@v2/01"]


def test_a_closed_cache(open_site: Callable[..., Cache], storage: CountingStorage) -> None:
    cache = open_site()
    ahead = cache.prefetch(paths_of(SIZES))
    next(ahead)
    cache.close()
    with pytest.raises(Closed):
        for _ in ahead:
            pass


def test_a_forked_child_goes_on_for_itself(
    open_site: Callable[..., Cache], objects: dict[str, bytes]
) -> None:
    cache = open_site()
    ahead = cache.prefetch(paths_of(SIZES))
    next(ahead)
    rest = [(f"d/{name}", objects[name]) for name in [*SIZES][1:]]

    def read_rest(link: Any) -> bool:
        return [(path, bytes(view)) for path, view in ahead] == rest

    with Child(read_rest) as child:
        assert child.result()
    assert [(path, bytes(view)) for path, view in ahead] == rest


def test_many_threads_with_an_iterator_each(
    open_site: Callable[..., Cache], objects: dict[str, bytes]
) -> None:
    cache = open_site(fetch_threads=4, in_flight_max=4, fetch_memory=MIB)
    wrong: list[object] = []

    def read(names: list[str]) -> None:
        for path, view in cache.prefetch(paths_of(names)):
            if bytes(view) != objects[path[2:]]:
                wrong.append(path)

    names = [*objects]
    threads = [
        threading.Thread(target=partial(read, names[start:] + names[:start])) for start in range(0, 40, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not wrong
    wait_for_the_budget(cache)
