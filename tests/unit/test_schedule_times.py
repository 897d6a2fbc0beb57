"""Times of schedules: cron expressions as cron reads them, time zones, summer time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.cache.schedules.times import local_zone, moment_of, next_time, zone_of
from forebay.errors import ConfigError

BERLIN = "Europe/Berlin"


@pytest.fixture
def set_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Set the time zone of this process, which is put back."""

    def set_one(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()
        # tzlocal keeps what it found.
        monkeypatch.setattr("tzlocal.unix._cache_tz_name", None)

    yield set_one
    monkeypatch.undo()
    time.tzset()


def times(expression: str, zone: str, after: str, count: int) -> list[str]:
    """Return the next times in UTC, as short as they can be told apart."""
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC).timestamp()
    found = []
    for _ in range(count):
        moment = next_time(expression, zone, moment)
        found.append(datetime.fromtimestamp(moment, UTC).strftime("%m-%d %H:%M"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 3 * * *", ["03-01 03:00", "03-02 03:00", "03-03 03:00"]),
        ("*/20 0 * * *", ["03-01 00:20", "03-01 00:40", "03-02 00:00"]),
        # 2026-03-01 is a Sunday, which is 0, 7 and SUN.
        ("0 3 * * 0", ["03-01 03:00", "03-08 03:00", "03-15 03:00"]),
        ("0 3 * * 7", ["03-01 03:00", "03-08 03:00", "03-15 03:00"]),
        ("0 3 * * sun", ["03-01 03:00", "03-08 03:00", "03-15 03:00"]),
        ("0 3 * * 1-2", ["03-02 03:00", "03-03 03:00", "03-09 03:00"]),
        # Days of the month and of the week are alternatives where both are given.
        ("0 3 3 * mon", ["03-02 03:00", "03-03 03:00", "03-09 03:00"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
    ],
)
def test_expressions_are_read_as_cron_reads_them(expression: str, expected: list[str]) -> None:
    assert times(expression, "UTC", "2026-03-01T00:00", 3) == expected


def test_a_time_that_is_left_out_comes_right_after_it() -> None:
    # 2026-03-29: from 02:00 (01:00 UTC) to 03:00 in Berlin.
    assert times("30 2 * * *", BERLIN, "2026-03-28T12:00", 2) == ["03-29 01:00", "03-30 00:30"]
    assert times("*/30 * * * *", BERLIN, "2026-03-29T00:00", 3) == [
        "03-29 00:30",
        "03-29 01:00",
        "03-29 01:30",
    ]


def test_several_times_that_are_left_out_come_once() -> None:
    assert times("15,30,45 2 * * *", BERLIN, "2026-03-28T12:00", 2) == ["03-29 01:00", "03-30 00:15"]


def test_a_time_of_day_comes_once_where_the_hour_comes_twice() -> None:
    # 2026-10-25: from 03:00 (01:00 UTC) back to 02:00 in Berlin.
    assert times("30 2 * * *", BERLIN, "2026-10-24T12:00", 2) == ["10-25 00:30", "10-26 01:30"]
    # Asked within the second such hour as well.
    assert times("30 2 * * *", BERLIN, "2026-10-25T01:10", 1) == ["10-26 01:30"]
    every = times("*/30 * * * *", BERLIN, "2026-10-25T00:00", 4)
    assert every == ["10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00"]


@given(
    st.sampled_from(["0 3 * * *", "30 2 * * *", "*/7 * * * *", "0 */5 * * *", "15 1,2,3 * * 0", "0 0 1 * *"]),
    st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    st.floats(0, 4e9),
)
def test_times_come_in_order_and_each_once(expression: str, zone: str, after: float) -> None:
    found = [after]
    for _ in range(4):
        found.append(next_time(expression, zone, found[-1]))
    assert all(earlier < later for earlier, later in pairwise(found))
    # Asked in between it is the same time: a run is neither lost nor repeated by when it is looked at.
    middle = (found[1] + found[2]) / 2
    assert next_time(expression, zone, middle) == found[2]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "write five fields"),
        ("0 3 * *", "write five fields"),
        ("0 0 3 * * *", "write five fields"),
        ("@daily", "write five fields"),
        ("60 3 * * *", "bad minute"),
        ("0 24 * * *", "bad hour"),
        ("0 3 0 * *", "bad day-of-month"),
        ("0 3 * 13 *", "bad month"),
        ("0 3 * * 8", "bad day-of-week"),
        ("*/0 3 * * *", "bad minute"),
        ("x 3 * * *", "bad minute"),
        ("1- 3 * * *", "bad minute"),
        ("0 3 30 2 *", "bad day-of-month"),
        ("0 3 29 2 mon#6", "bad day-of-week"),
    ],
)
def test_what_is_no_expression_is_refused(expression: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as told:
        next_time(expression, "UTC", 0.0)
    assert repr(expression) in str(told.value)


@given(st.text(alphabet="0123456789*/,-#LW monSUN\x00é", max_size=30))
def test_any_text_is_an_expression_or_an_error_of_ours(expression: str) -> None:
    with suppress(ConfigError):
        assert next_time(expression, "UTC", 1e9) > 1e9


@pytest.mark.parametrize(
    "name", ["Europe/Nowhere", "", "../etc/passwd", "/etc/localtime", "a\x00b", "Europe"]
)
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is known here; write a name"):
        zone_of(name)


def test_times_with_and_without_an_offset(set_zone: Callable[[str], None]) -> None:
    naive = datetime(2026, 12, 1, 3, 0)
    assert moment_of(naive, BERLIN) == datetime(2026, 12, 1, 2, 0, tzinfo=UTC).timestamp()
    assert moment_of(naive, "UTC") == naive.replace(tzinfo=UTC).timestamp()
    with_offset = naive.replace(tzinfo=timezone(timedelta(hours=-5)))
    assert moment_of(with_offset, None) == with_offset.timestamp()
    with pytest.raises(ConfigError, match="offset of its own"):
        moment_of(with_offset, BERLIN)
    set_zone("Asia/Tokyo")
    assert moment_of(naive, None) == naive.replace(tzinfo=ZoneInfo("Asia/Tokyo")).timestamp()


@pytest.mark.parametrize("zone", [BERLIN, ":Europe/Berlin", "/usr/share/zoneinfo/Europe/Berlin"])
def test_the_zone_of_the_machine(set_zone: Callable[[str], None], zone: str) -> None:
    set_zone(zone)
    assert local_zone() == BERLIN


@pytest.mark.parametrize("zone", ["XYZ-3", "ABC-3DEF-4"])
def test_a_zone_without_a_name_has_to_be_named(set_zone: Callable[[str], None], zone: str) -> None:
    set_zone(zone)
    with pytest.raises(ConfigError, match="name one with timezone"):
        local_zone()


def test_a_machine_without_a_zone_is_on_utc(
    set_zone: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_zone("UTC")
    monkeypatch.setattr("tzlocal.get_localzone_name", lambda: None)
    assert local_zone() == "UTC"
