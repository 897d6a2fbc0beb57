"""Boot time, and the clock that stands in for it."""

from __future__ import annotations

import re
import time

import pytest

from forebay.clock import NS_PER_S, BootClock, boot_id
from forebay.testing.clock import ManualClock


def test_boot_time_goes_on_and_counts_suspend() -> None:
    clock = BootClock()
    before = clock.boot_ns()
    assert before <= clock.boot_ns()
    assert clock.boot_ns() >= time.monotonic_ns() - NS_PER_S


def test_the_boot_has_one_id() -> None:
    assert boot_id() == boot_id()
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", boot_id())


def test_a_manual_clock_moves_when_told() -> None:
    clock = ManualClock(start_s=5)
    assert clock.boot_ns() == clock.boot_ns() == 5 * NS_PER_S
    clock.advance(0.25)
    assert clock.boot_ns() == 5.25 * NS_PER_S
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)
