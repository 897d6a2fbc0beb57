"""Walking a tree by several threads: everything once, bounded memory, errors told, nothing left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from forebay.errors import NotFound, UnderStorageError, not_found, under_storage_error
from forebay.testing.faulty import FaultyStorage
from forebay.ufs._walk import visit_in_parallel

WAIT_S = 60.0

Visit = Callable[[str], Iterator[tuple[Sequence[str], Sequence[str]]]]


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that other threads bring about; fail if they do not."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.001)


def walkers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("forebay-walk")]


def tree(depth: int, fan_out: int) -> Visit:
    """Make a tree of names: each node has one item of its own name, each but the deepest some children."""

    def visit(name: str) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        yield [name], []
        yield [], [f"{name}/{child}" for child in range(fan_out) if name.count("/") < depth]

    return visit


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_everything_comes_once(workers: int) -> None:
    found = [name for page in visit_in_parallel(["r"], tree(3, 5), workers) for name in page]
    assert len(found) == len(set(found)) == 1 + 5 + 25 + 125
    wait_for(lambda: not walkers())


@pytest.mark.parametrize("workers", [1, 8])
def test_an_empty_page_is_not_passed_on(workers: int) -> None:
    pages = list(visit_in_parallel(["r"], tree(1, 3), workers))
    assert all(pages)
    assert list(visit_in_parallel([], tree(1, 3), workers)) == []


def test_one_worker_is_the_consumer() -> None:
    threads = set()

    def visit(name: str) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        threads.add(threading.current_thread())
        yield [name], []

    assert list(visit_in_parallel(["a", "b"], visit, 1)) == [["b"], ["a"]]
    assert threads == {threading.current_thread()}


def test_several_are_at_work_at_the_same_time_and_no_more_than_asked() -> None:
    together = threading.Barrier(4)

    def visit(name: str) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        together.wait(WAIT_S)
        yield [name], []

    pages = visit_in_parallel([str(number) for number in range(8)], visit, 4)
    assert next(pages)
    assert len(walkers()) <= 4
    assert len(list(pages)) == 7


@pytest.mark.parametrize("workers", [1, 4])
def test_an_error_reaches_the_consumer(workers: int) -> None:
    def visit(name: str) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        yield [name], [f"{name}/{child}" for child in range(3)] if name.count("/") < 2 else []
        if name == "r/1/2":
            raise under_storage_error(name, "broken")

    with pytest.raises(UnderStorageError, match="broken"):
        list(visit_in_parallel(["r"], visit, workers))
    wait_for(lambda: not walkers())


def test_a_slow_consumer_holds_the_workers_back() -> None:
    steps: list[int] = []

    def visit(name: str) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        for number in range(1_000):
            steps.append(number)
            yield [name], []

    pages = visit_in_parallel(["a", "b"], visit, 2)
    next(pages)
    wait_for(lambda: len(steps) >= 7)
    # Four pages wait, one is out, and each of the two workers holds one more.
    assert len(steps) == 7
    assert sum(1 for _ in pages) == 1_999


@pytest.mark.parametrize("let_go", ["close", "forget"])
def test_closing_the_iterator_stops_the_workers(let_go: str) -> None:
    def endless(name: str) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        while True:
            yield [name], []

    pages = visit_in_parallel(["a", "b", "c"], endless, 3)
    next(pages)
    assert walkers()
    if let_go == "close":
        pages.close()  # type: ignore[attr-defined]  # a generator
    del pages
    wait_for(lambda: not walkers())


def test_a_storage_is_walked_by_its_listings() -> None:
    storage = FaultyStorage({"a": b"1", "d/b": b"22", "d/e/c": b"333", "f/g/h/i": b"4444"})
    found = {info.path: info.size for page in storage.walk("") for info in page}
    assert found == {"a": 1, "d/b": 2, "d/e/c": 3, "f/g/h/i": 4}
    assert storage.calls["list"] == 6
    assert [info.path for page in storage.walk("d/e") for info in page] == ["d/e/c"]


def test_a_directory_that_vanished_has_nothing_below_it() -> None:
    storage = FaultyStorage({"a": b"1", "d/b": b"22"})
    storage.script("list", None, not_found("d"))
    assert [info.path for page in storage.walk("") for info in page] == ["a"]
    storage.script("list", not_found("gone"))
    with pytest.raises(NotFound, match="gone"):
        list(storage.walk(""))


def test_a_directory_that_cannot_be_listed_ends_the_walk() -> None:
    storage = FaultyStorage({"a": b"1", "d/b": b"22"})
    storage.script("list", None, PermissionError(13, "forbidden", "d"))
    with pytest.raises(PermissionError, match="forbidden"):
        list(storage.walk(""))
