"""Threads that are started as they are needed and used again, and left behind where they have to be."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from forebay.cache.workers import Workers

WAIT_S = 30


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers("test-workers")
    yield workers
    workers.close(WAIT_S)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("test-workers")]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_what_runs_side_by_side_has_a_thread_each(workers: Workers) -> None:
    together = threading.Barrier(5)

    def meet() -> None:
        together.wait(WAIT_S)

    for _ in range(3):
        for _ in range(4):
            workers.run(meet)
        together.wait(WAIT_S)
    assert 4 <= len(threads()) <= 12
    assert all(thread.daemon for thread in threads())


def test_a_thread_that_is_free_is_used_again(workers: Workers) -> None:
    for _ in range(20):
        done = threading.Event()
        workers.run(done.set)
        assert done.wait(WAIT_S)
        wait_until(lambda: workers._pending_count == 0)
    assert len(threads()) == 1


def test_closing_ends_those_that_are_free_and_leaves_what_does_not_end(workers: Workers) -> None:
    running, free, go = threading.Event(), threading.Event(), threading.Event()

    def stay() -> None:
        running.set()
        go.wait(WAIT_S)

    workers.run(stay)
    workers.run(free.set)
    assert running.wait(WAIT_S)
    assert free.wait(WAIT_S)
    workers.close(0.0)
    workers.close(0.0)
    wait_until(lambda: len(threads()) == 1)
    go.set()
    wait_until(lambda: not threads())


def test_closing_waits_for_what_ends(workers: Workers) -> None:
    ended: list[int] = []
    running, go = threading.Event(), threading.Event()

    def work() -> None:
        running.set()
        assert go.wait(WAIT_S)
        ended.append(1)

    workers.run(work)
    assert running.wait(WAIT_S)
    go.set()
    workers.close(WAIT_S)
    assert ended == [1]


def test_one_of_them_may_close_them(workers: Workers) -> None:
    closed = threading.Event()

    def close() -> None:
        workers.close(WAIT_S)
        closed.set()

    workers.run(close)
    assert closed.wait(WAIT_S)
