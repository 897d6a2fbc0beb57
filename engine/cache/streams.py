"""How many parts of large objects are worth fetching at a time.

Where one stream is fast, the processors are what limits it, and more streams only take each other's caches.
So there are few at first. While they are slow (a distant server, or one that gives each connection its share)
their number doubles, as long as twice as many bring clearly more in all. It is measured by generations: from
when as many parts as there are streams have ended until as many again have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from forebay.config import MIB

STREAMS_MIN: Final = 4
_FAST_BYTES_A_SECOND: Final = 100 * MIB
_GAIN_MIN: Final = 1.25


class Streams:
    """The number for one process. Threads: one at a time."""

    def __init__(self, count_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with few, and never allow more than count_max."""
        self._clock: Final = clock
        self._count_max: Final = count_max
        self.count = min(STREAMS_MIN, count_max)
        self._is_settled = False
        # Bytes a second with half as many; 0: not known.
        self._rate_before = 0.0
        self._ended = 0
        self._bytes = 0
        self._since_s = 0.0

    def begin(self) -> None:
        """Look anew whether more are worth it: parts are fetched after a time in which none were."""
        self._is_settled = False
        self._rate_before = 0.0
        self._ended = 0

    def end(self, size_bytes: int) -> None:
        """Take note that a part has ended, and how many bytes it brought."""
        if self._is_settled:
            return
        self._ended += 1
        if self._ended <= self.count:
            self._since_s, self._bytes = self._clock(), 0
            return
        self._bytes += size_bytes
        if self._ended == 2 * self.count:
            self._ended = 0
            self._judge(self._bytes / max(self._clock() - self._since_s, 1e-9))

    def _judge(self, rate: float) -> None:
        if rate < _GAIN_MIN * self._rate_before:
            self.count = max(self.count // 2, 1)
            self._is_settled = True
        elif rate >= _FAST_BYTES_A_SECOND * self.count or self.count == self._count_max:
            self._is_settled = True
        else:
            self._rate_before = rate
            self.count = min(2 * self.count, self._count_max)
