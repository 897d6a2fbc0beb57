"""How long a peer is waited for: as long as it gives signs of life, and at most up to an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from forebay.peer.data.errors import Cancelled


@dataclass(frozen=True, slots=True)
class Deadline:
    """A peer is given up after silence_s without a sign of life, and at end_s of time.monotonic."""

    silence_s: float
    end_s: float | None = None


class Watch:
    """One wait under a deadline, which whoever asked may cancel. Threads: one at a time."""

    def __init__(self, deadline: Deadline, cancelled: Callable[[], bool]) -> None:
        """Begin to count now."""
        self._deadline = deadline
        self._cancelled = cancelled
        self._heard_s = time.monotonic()

    def heard(self) -> None:
        """Note a sign of life."""
        self._heard_s = time.monotonic()

    def hold(self) -> None:
        """Return if waiting is to go on. Raises: TimeoutError, which says for how long; Cancelled."""
        if self._cancelled():
            raise Cancelled
        now_s = time.monotonic()
        silent_s = now_s - self._heard_s
        if silent_s >= self._deadline.silence_s:
            raise TimeoutError(f"no sign of life for {silent_s:.1f} s")
        if self._deadline.end_s is not None and now_s >= self._deadline.end_s:
            raise TimeoutError("no whole answer by the deadline")


def never() -> bool:
    """Say that nobody cancels."""
    return False
