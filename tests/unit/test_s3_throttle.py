"""The rate at which a server is asked: unlimited, cut, recovering, lifted. Time is the test's own."""

from __future__ import annotations

import threading
import time

import pytest

from forebay.ufs._stop import Stop
from forebay.ufs._throttle import Throttle


class Time(Stop):
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0

    def read(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> bool:
        assert seconds > 0
        self.now_s += seconds
        return False


@pytest.fixture
def clock() -> Time:
    return Time()


@pytest.fixture
def throttle(clock: Time) -> Throttle:
    return Throttle(clock.read)


def ask(throttle: Throttle, clock: Time, count: int, every_s: float) -> None:
    for _ in range(count):
        throttle.admit(clock)
        clock.now_s += every_s


def test_without_refusals_nothing_waits(throttle: Throttle, clock: Time) -> None:
    for _ in range(10_000):
        assert throttle.admit(clock) == 0.0
    assert clock.now_s == 1_000.0
    assert throttle.rate is None


def test_a_refusal_halves_the_rate_there_was(throttle: Throttle, clock: Time) -> None:
    ask(throttle, clock, 100, 0.01)
    throttle.slow_down()
    assert throttle.rate == pytest.approx(50, rel=0.05)
    assert throttle.throttled == 1


def test_refusals_of_requests_under_way_are_one(throttle: Throttle, clock: Time) -> None:
    ask(throttle, clock, 100, 0.01)
    for _ in range(30):
        throttle.slow_down()
    assert throttle.rate == pytest.approx(50, rel=0.05)
    assert throttle.throttled == 30


def test_refusals_that_go_on_cut_again_down_to_a_least(throttle: Throttle, clock: Time) -> None:
    ask(throttle, clock, 1_000, 0.001)
    rates = []
    for _ in range(14):
        throttle.slow_down()
        rates.append(throttle.rate or 0.0)
        clock.now_s += 0.6
    assert rates == sorted(rates, reverse=True)
    assert 5.0 <= rates[-1] < 16.0


def test_it_recovers_by_equal_steps_and_the_limit_is_lifted(throttle: Throttle, clock: Time) -> None:
    ask(throttle, clock, 1_000, 0.001)
    throttle.slow_down()
    cut = throttle.rate or 0.0
    rates = []
    for _ in range(20):
        clock.now_s += 1.0
        rates.append(throttle.rate or 0.0)
    steps = [after - before for before, after in zip([cut, *rates], rates, strict=False)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert rates[9] == pytest.approx(2 * cut)
    clock.now_s += 20.0
    assert throttle.rate is None
    before_s = clock.now_s
    ask(throttle, clock, 1_000, 0.0)
    assert clock.now_s == before_s


def test_requests_pass_at_the_rate(throttle: Throttle, clock: Time) -> None:
    throttle.limit(100)
    start_s = clock.now_s
    waited_s = sum(throttle.admit(clock) for _ in range(500))
    assert clock.now_s - start_s == pytest.approx(5.0, rel=0.03)
    assert waited_s == pytest.approx(clock.now_s - start_s)


def test_of_several_fixed_limits_the_lowest_holds(throttle: Throttle, clock: Time) -> None:
    for limit in (50, 20, 80):
        throttle.limit(limit)
    assert throttle.rate == 20
    ask(throttle, clock, 100, 0.05)
    throttle.slow_down()
    assert throttle.rate == pytest.approx(10, rel=0.1)
    clock.now_s += 100
    assert throttle.rate == 20


def test_idle_time_is_not_saved_up(throttle: Throttle, clock: Time) -> None:
    throttle.limit(100)
    clock.now_s += 1_000.0
    start_s = clock.now_s
    ask(throttle, clock, 100, 0.0)
    assert clock.now_s - start_s > 0.8


def test_threads_share_one_rate() -> None:
    throttle, stop = Throttle(), Stop()
    throttle.limit(200)
    start_s = time.monotonic()
    threads = [threading.Thread(target=lambda: [throttle.admit(stop) for _ in range(10)]) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # How much longer it took is the machine's affair.
    assert time.monotonic() - start_s > 0.35
