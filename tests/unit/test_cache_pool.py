"""The requests of one process: limits, who goes first, cancelling, closing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial

import pytest

from forebay.cache import pool as pool_module
from forebay.cache.blocks import PART_BYTES
from forebay.cache.pool import FetchLimits, FetchPool, Kind
from forebay.cache.streams import STREAMS_MIN
from forebay.config import MIB
from forebay.errors import Closed, ConfigError

WAIT_S = 30


class Gate:
    """Tasks that say that they run, and then wait to be let go."""

    def __init__(self) -> None:
        self.started = threading.Semaphore(0)
        self.go = threading.Event()
        self.order: list[str] = []

    def task(self, name: str = "") -> None:
        self.order.append(name)
        self.started.release()
        assert self.go.wait(WAIT_S)

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.started.acquire(timeout=WAIT_S)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def pools(gate: Gate) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack
        gate.go.set()


def make(pools: ExitStack, **limits: int) -> FetchPool:
    pool = FetchPool(FetchLimits(**limits))
    pools.callback(pool.close)
    return pool


def test_tasks_return_and_raise(pools: ExitStack) -> None:
    pool = make(pools)
    assert pool.submit(Kind.LOAD, 10, lambda: 7).result(WAIT_S) == 7
    failing: Future[int] = pool.submit(Kind.LOAD, 0, partial(int, "x"))
    with pytest.raises(ValueError, match="invalid literal"):
        failing.result(WAIT_S)
    squares = [number**2 for number in range(50)]
    assert pool.run_all(Kind.DEMAND, [(1, partial(pow, number, 2)) for number in range(50)]) == squares
    assert pool.status()["in_flight"] == pool.status()["memory_bytes"] == 0


def test_run_all_raises_the_first_in_order_when_all_have_ended(pools: ExitStack) -> None:
    pool, ended = make(pools), []

    def fail(name: str) -> None:
        ended.append(name)
        raise ValueError(name)

    with pytest.raises(ValueError, match="a"):
        pool.run_all(Kind.DEMAND, [(1, partial(fail, name)) for name in "abc"])
    assert sorted(ended) == ["a", "b", "c"]


def test_the_memory_budget_is_kept(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools, fetch_memory=10 * MIB)
    futures = [pool.submit(Kind.DEMAND, 4 * MIB, gate.task) for _ in range(5)]
    gate.wait_for(2)
    assert pool.status()["memory_bytes"] == 8 * MIB
    assert not gate.started.acquire(blocking=False)
    gate.go.set()
    for future in futures:
        future.result(WAIT_S)


def test_what_is_larger_than_the_budget_runs_alone(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools, fetch_memory=MIB)
    large = pool.submit(Kind.DEMAND, 5 * MIB, gate.task)
    gate.wait_for(1)
    small = pool.submit(Kind.DEMAND, 1, lambda: pool.status()["in_flight"])
    gate.go.set()
    large.result(WAIT_S)
    assert small.result(WAIT_S) == 1


def test_the_limit_of_requests_counts_callers_too(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools, in_flight_max=2)
    with pool.permit(Kind.DEMAND, 1):
        pool.submit(Kind.DEMAND, 1, gate.task)
        gate.wait_for(1)
        third: Future[None] = pool.submit(Kind.DEMAND, 1, lambda: None)
        assert pool.status()["in_flight"] == 2
        assert not third.done()
    third.result(WAIT_S)


def test_readers_go_before_readahead_and_that_before_loads(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools, fetch_threads=1, in_flight_max=1)
    first = Gate()
    pools.callback(first.go.set)
    pool.submit(Kind.DEMAND, 1, first.task)
    first.wait_for(1)
    futures = [
        pool.submit(kind, 1, partial(gate.task, kind.name))
        for kind in (Kind.LOAD, Kind.READAHEAD, Kind.DEMAND, Kind.LOAD, Kind.DEMAND)
    ]
    gate.go.set()
    first.go.set()
    for future in futures:
        future.result(WAIT_S)
    assert gate.order == ["DEMAND", "DEMAND", "READAHEAD", "LOAD", "LOAD"]


def test_loads_leave_a_share_to_readers(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools, fetch_threads=8, in_flight_max=8)
    loads = [pool.submit(Kind.LOAD, 1, gate.task) for _ in range(20)]
    gate.wait_for(6)
    assert pool.submit(Kind.DEMAND, 1, lambda: pool.status()["in_flight"]).result(WAIT_S) == 7
    assert not gate.started.acquire(blocking=False)
    gate.go.set()
    for future in loads:
        future.result(WAIT_S)


def test_a_reader_that_waits_keeps_loads_from_starting(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools, fetch_threads=4, in_flight_max=2)
    blockers = [pool.submit(Kind.DEMAND, 1, gate.task) for _ in range(2)]
    gate.wait_for(2)
    order: list[str] = []

    def read() -> None:
        with pool.permit(Kind.DEMAND, 1):
            order.append("reader")

    reader = threading.Thread(target=read)
    load = pool.submit(Kind.LOAD, 1, lambda: order.append("load"))
    reader.start()
    gate.go.set()
    reader.join(WAIT_S)
    load.result(WAIT_S)
    for blocker in blockers:
        blocker.result(WAIT_S)
    assert sorted(order) == ["load", "reader"]


def test_what_waits_may_be_cancelled(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools, fetch_threads=1)
    pool.submit(Kind.DEMAND, 1, gate.task)
    gate.wait_for(1)
    waiting = pool.submit(Kind.READAHEAD, 1, lambda: pytest.fail("it was cancelled"))
    assert waiting.cancel()
    last = pool.submit(Kind.READAHEAD, 1, lambda: "ran")
    gate.go.set()
    assert last.result(WAIT_S) == "ran"


def test_a_closed_pool_runs_nothing(pools: ExitStack) -> None:
    pool = make(pools)
    pool.close()
    pool.close()
    assert pool.submit(Kind.LOAD, 1, lambda: None).cancelled()
    with pytest.raises(Closed):
        pool.run_all(Kind.DEMAND, [(1, lambda: None)] * 2)


def test_what_does_not_end_is_left_behind_by_who_closes(
    pools: ExitStack, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_PATIENCE_S", 0.01)
    pool = make(pools, in_flight_max=1)
    running = pool.submit(Kind.DEMAND, 1, gate.task)
    gate.wait_for(1)
    waiting: list[BaseException] = []

    def wait_for_a_permit() -> None:
        try:
            with pool.permit(Kind.DEMAND, 1):
                pytest.fail("there is none")
        except Closed as error:
            waiting.append(error)

    waiter = threading.Thread(target=wait_for_a_permit)
    waiter.start()
    while not pool._waiting:
        assert waiter.is_alive()
    pool.close()
    with pytest.raises(Closed):
        running.result(WAIT_S)
    waiter.join(WAIT_S)
    assert len(waiting) == 1
    gate.go.set()


def test_what_ends_within_a_moment_is_waited_for(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools)
    running = pool.submit(Kind.DEMAND, 1, gate.task)
    gate.wait_for(1)
    gate.go.set()
    pool.close()
    assert running.result(0) is None


def test_parts_of_large_objects_are_few_and_leave_the_way_free(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools)
    parts = [pool.submit(Kind.DEMAND, PART_BYTES, gate.task, 1) for _ in range(3 * STREAMS_MIN)]
    gate.wait_for(STREAMS_MIN)
    assert pool.submit(Kind.DEMAND, PART_BYTES - 1, lambda: "smaller").result(WAIT_S) == "smaller"
    assert not gate.started.acquire(blocking=False)
    assert pool.status()["memory_bytes"] == STREAMS_MIN
    gate.go.set()
    for part in parts:
        part.result(WAIT_S)


def test_parts_for_readers_do_not_wait_for_those_of_loads(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools)
    loads = [pool.submit(Kind.LOAD, PART_BYTES, gate.task) for _ in range(2 * STREAMS_MIN)]
    gate.wait_for(STREAMS_MIN)
    readers = [pool.submit(Kind.DEMAND, PART_BYTES, gate.task) for _ in range(STREAMS_MIN)]
    gate.wait_for(STREAMS_MIN)
    assert not gate.started.acquire(blocking=False)
    gate.go.set()
    for future in loads + readers:
        future.result(WAIT_S)


def test_memory_set_aside_has_the_same_budget(pools: ExitStack) -> None:
    pool = make(pools, fetch_memory=10 * MIB)
    assert pool.try_hold(6 * MIB)
    with pool.permit(Kind.DEMAND, 3 * MIB):
        assert not pool.try_hold(2 * MIB)
        assert pool.status()["memory_bytes"] == 9 * MIB
    assert pool.try_hold(2 * MIB)
    pool.unhold(8 * MIB)
    assert pool.status()["memory_bytes"] == 0


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"fetch_threads": 0}, "fetch_threads"),
        ({"in_flight_max": True}, "in_flight_max"),
        ({"fetch_memory": 0}, "no room"),
        ({"readahead_max": "much"}, "readahead_max"),
    ],
)
def test_limits_that_make_no_sense(limits: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FetchLimits(**limits)


def test_sizes_may_be_written_out() -> None:
    limits = FetchLimits(fetch_memory="1MiB", readahead_max="2MiB")
    assert (limits.memory_bytes, limits.readahead_bytes) == (MIB, 2 * MIB)


def test_the_main_thread_waits_where_an_interrupt_reaches_it(pools: ExitStack) -> None:
    pool, main = make(pools), threading.get_ident()
    assert pool.run_one(threading.get_ident) != main
    assert pool.run_all(Kind.DEMAND, [(1, threading.get_ident)]) != [main]
    found: list[int] = []
    other = threading.Thread(
        target=lambda: found.extend([threading.get_ident(), pool.run_one(threading.get_ident)])
    )
    other.start()
    other.join(WAIT_S)
    assert found[0] == found[1]


def test_an_interrupt_cancels_what_waits_and_leaves_what_runs(pools: ExitStack, gate: Gate) -> None:
    pool = make(pools, fetch_threads=1)

    def interrupt() -> None:
        gate.wait_for(1)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        pool.run_all(Kind.DEMAND, [(1, partial(gate.task, "first")), (1, partial(gate.task, "second"))])
    gate.go.set()
    assert pool.run_one(lambda: "goes on") == "goes on"
    assert gate.order == ["first"]
