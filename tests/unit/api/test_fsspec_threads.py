"""Calls in threads: so many at a time, in order, and none that was cancelled before its turn."""

from __future__ import annotations

import threading

import pytest

from forebay.api._fsspec_threads import Threads

WAIT_S = 30


def test_no_more_calls_run_at_a_time_than_was_said() -> None:
    threads, go_on = Threads(3), threading.Event()
    together, begun = threading.Barrier(4), []

    def hold(number: int) -> int:
        begun.append(number)
        if number < 3:
            together.wait(WAIT_S)
        assert go_on.wait(WAIT_S)
        return number

    calls = [threads.submit(lambda number=number: hold(number)) for number in range(10)]  # type: ignore[misc]  # a default binds it
    together.wait(WAIT_S)
    assert sorted(begun) == [0, 1, 2]
    assert calls[5].cancel()
    go_on.set()
    assert [each.result(WAIT_S) for each in calls if not each.cancelled()] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert 5 not in begun


def test_what_a_call_raises_is_its_own() -> None:
    threads = Threads(1)

    def fail() -> None:
        raise LookupError("mine")

    failed, after = threads.submit(fail), threads.submit(lambda: 7)
    with pytest.raises(LookupError, match="mine"):
        failed.result(WAIT_S)
    assert after.result(WAIT_S) == 7
