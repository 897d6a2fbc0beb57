"""How many parts at a time, by what they bring: time and rates are the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from forebay.cache.streams import STREAMS_MIN, Streams
from forebay.config import MIB

PART = 8 * MIB


class Time:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def read(self) -> float:
        return self.now_s


def settle(rate_of: Callable[[int], float], count_max: int = 32, start: Streams | None = None) -> int:
    """Fetch parts of a server that gives rate_of(streams) bytes a second; return how many there are then."""
    clock = Time()
    streams = start or Streams(count_max, clock.read)
    streams._clock = clock.read  # type: ignore[misc]  # a later time, for one that was begun before
    streams.begin()
    for _ in range(1_000):
        clock.now_s += PART / rate_of(streams.count)
        streams.end(PART)
    return streams.count


@pytest.mark.parametrize(
    ("rate_of", "expected"),
    [
        pytest.param(lambda count: 900.0 * MIB, STREAMS_MIN, id="a fast server: few are enough"),
        pytest.param(lambda count: 900.0 * MIB / count, STREAMS_MIN, id="more are worse"),
        pytest.param(lambda count: 190.0 * MIB, STREAMS_MIN, id="a bandwidth that few use up"),
        pytest.param(lambda count: 80.0 * MIB * count, 32, id="each connection has its share"),
        pytest.param(lambda count: 10.0 * MIB * count, 32, id="a distant server"),
        pytest.param(lambda count: min(80.0 * count, 700.0) * MIB, 8, id="shares up to a bandwidth"),
    ],
)
def test_there_are_as_many_as_bring_more(rate_of: Callable[[int], float], expected: int) -> None:
    assert settle(rate_of) == expected


def test_a_limit_is_kept() -> None:
    assert settle(lambda count: 10.0 * MIB * count, count_max=6) == 6
    assert settle(lambda count: 10.0 * MIB * count, count_max=2) == 2
    assert Streams(1).count == 1


def test_what_was_found_out_holds_for_the_next_object() -> None:
    clock = Time()
    streams = Streams(32, clock.read)
    assert settle(lambda count: 10.0 * MIB * count, start=streams) == 32
    streams.begin()
    assert streams.count == 32


def test_it_is_looked_at_anew_after_a_rest() -> None:
    streams = Streams(32)
    assert settle(lambda count: 190.0 * MIB, start=streams) == STREAMS_MIN
    assert settle(lambda count: 10.0 * MIB * count, start=streams) == 32
