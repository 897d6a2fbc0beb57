"""A clock that moves only when it is told to."""

from __future__ import annotations

import threading
from typing import Final

from forebay.clock import NS_PER_S


class ManualClock:
    """A ``forebay.clock.Clock`` for tests: freshness and expiry without waiting. Threads: any."""

    def __init__(self, start_s: float = 1_000.0) -> None:
        """Start at the given seconds since boot."""
        self._lock: Final = threading.Lock()
        self._now_ns = int(start_s * NS_PER_S)

    def boot_ns(self) -> int:
        """Return the time that was set."""
        with self._lock:
            return self._now_ns

    def advance(self, seconds: float) -> None:
        """Move on by the seconds. Raises: ValueError (backwards, which boot time never goes)."""
        if seconds < 0:
            raise ValueError(f"boot time does not go back: {seconds}")
        with self._lock:
            self._now_ns += int(seconds * NS_PER_S)
