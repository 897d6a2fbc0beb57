"""The figures of a load, its rate limit, and knowing when the cache is full."""

from __future__ import annotations

import pytest

from forebay.cache.loads.file import FullGuard
from forebay.cache.loads.progress import Meter, Progress
from forebay.cache.loads.throttle import NotNow, TokenBucket, Turn


class Seconds:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_grants_its_rate_over_time() -> None:
    clock = Seconds()
    bucket = TokenBucket(1_000, clock)
    granted, waited = 0, 0.0
    while granted < 20_000:
        wait_s = bucket.try_take(50)
        if wait_s == 0:
            granted += 50
        waited += wait_s
        clock.now += wait_s
    assert waited == pytest.approx((20_000 - 200 - 50) / 1_000, abs=0.06)


def test_a_bucket_saves_a_fifth_of_a_second_at_most() -> None:
    clock = Seconds()
    bucket = TokenBucket(1_000, clock)
    clock.now += 3_600
    assert bucket.try_take(200) == bucket.try_take(100) == 0
    assert bucket.try_take(1) == pytest.approx(0.1)
    assert bucket.try_take(1) == pytest.approx(0.1)


def test_more_than_the_burst_is_granted_and_paid_for_afterwards() -> None:
    clock = Seconds()
    bucket = TokenBucket(1_000, clock)
    assert bucket.try_take(10_200) == 0
    assert bucket.try_take(100) == pytest.approx(10.0)
    clock.now += 10.001
    assert bucket.try_take(100) == 0
    bucket.owe(1_000)
    assert bucket.try_take(0) == pytest.approx(1.1, abs=0.01)


def test_a_turn_is_refused_while_something_is_owed() -> None:
    turn = Turn(1_000, lambda: False)
    with turn.of(10_000):
        pass
    with pytest.raises(NotNow) as refused, turn.of(1):
        pass
    assert 9 < refused.value.wait_s <= 9.8
    unlimited = Turn(None, lambda: False)
    with unlimited.of(10**12), unlimited.of(10**12), unlimited.of(10**12):
        unlimited.owe(10**12)


def test_beside_readers_two_requests_at_a_time_are_made() -> None:
    readers_wait = True
    turn = Turn(None, lambda: readers_wait)
    with turn.of(1):
        with turn.of(1):
            with pytest.raises(NotNow), turn.of(1):
                pass
            readers_wait = False
            with turn.of(1):
                readers_wait = True
        with turn.of(1):
            pass


def test_figures_rates_and_eta() -> None:
    clock = Seconds()
    meter = Meter(clock, lambda: 1_000.0)
    assert meter.progress() == Progress("running", started=1_000.0)
    meter.set_totals(10, 1_000)
    meter.fetched(300)
    meter.settled("done", 300)
    meter.settled("skipped", 100)
    meter.settled("failed", 50)
    meter.settled("not_admitted", 50)
    clock.now += 2
    found = meter.progress()
    assert (found.files_done, found.files_skipped, found.files_failed, found.files_not_admitted) == (
        1,
        1,
        1,
        1,
    )
    assert (found.files_total, found.files_settled) == (10, 4)
    assert (found.bytes_total, found.bytes_done, found.bytes_skipped) == (1_000, 300, 100)
    assert found.rate == pytest.approx(150.0)
    assert found.eta == pytest.approx(500 / 150)
    assert Progress.from_json(found.to_json()) == found


def test_the_rate_is_that_of_the_last_seconds() -> None:
    clock = Seconds()
    meter = Meter(clock)
    meter.fetched(1_000_000)
    for _ in range(40):
        clock.now += 0.25
        meter.progress()
    assert meter.progress().rate == 0.0
    meter.set_totals(1, None)
    assert meter.progress().eta is None
    meter.settled("done", 0)
    assert meter.progress().eta == 0.0


def test_where_sizes_are_not_known_files_give_the_eta() -> None:
    clock = Seconds()
    meter = Meter(clock)
    meter.set_totals(30, None)
    for _ in range(10):
        meter.settled("done", 5)
    clock.now += 2
    assert meter.progress().eta == pytest.approx(4.0)
    assert meter.progress("done").eta is None


def test_figures_of_a_later_version_are_left_out() -> None:
    assert Progress.from_json({"state": "done", "files_done": 3, "files_melted": 1}) == Progress(
        "done", files_done=3
    )


def test_a_full_cache_is_asked_now_and_then() -> None:
    clock = Seconds()
    full = FullGuard(clock)
    for _ in range(15):
        full.refused()
        assert full.may_fetch()
    full.refused()
    assert full.is_full
    assert not full.may_fetch()
    clock.now += 1.1
    assert [full.may_fetch(), full.may_fetch()] == [True, False]
    full.admitted()
    assert full.may_fetch()
    assert not full.is_full
