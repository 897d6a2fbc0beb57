"""When a second peer is asked beside a silent first one, and how often that may be.

A request is hedged when its peer has been silent for longer than it is in 95 of 100 cases. Second requests
are a small share of all, so that a group that is slow because it has too much to do does not get more of it.
Source: Dean, Barroso, The Tail at Scale (CACM 56/2, 2013), section Within Request Short-Term Adaptations.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Final

DELAY_S_MIN: Final = 0.005
# Before a peer has answered often enough to know it; the first answers pay for connections as well.
DELAY_S_UNKNOWN: Final = 0.1

_SAMPLES_MAX: Final = 128
_SAMPLES_MIN: Final = 16
_SORT_EVERY: Final = 16

# Second requests: one in ten, and so many at once after a time without any.
_EARNED: Final = 0.1
_EARNED_MAX: Final = 20.0


class Latency:
    """How long a peer was silent after requests, of late. Threads: any."""

    __slots__ = ("_delay_s", "_lock", "_median_s", "_recent_s", "_unsorted")

    def __init__(self) -> None:
        """Know nothing yet."""
        self._lock: Final = threading.Lock()
        self._recent_s: Final[deque[float]] = deque(maxlen=_SAMPLES_MAX)
        self._unsorted = 0
        self._delay_s = DELAY_S_UNKNOWN
        self._median_s = 0.0

    def note(self, silent_s: float) -> None:
        """Note how long it took until the first sign of life came."""
        with self._lock:
            self._recent_s.append(silent_s)
            self._unsorted += 1
            if self._unsorted < _SORT_EVERY:
                return
            self._unsorted = 0
            ordered = sorted(self._recent_s)
            self._median_s = ordered[len(ordered) // 2]
            if len(ordered) >= _SAMPLES_MIN:
                self._delay_s = max(ordered[int(len(ordered) * 0.95)], DELAY_S_MIN)

    @property
    def hedge_after_s(self) -> float:
        """After how much silence another peer is asked as well."""
        return self._delay_s

    @property
    def median_s(self) -> float:
        """The silence in the middle of them all; 0 if too few are known."""
        return self._median_s


class HedgeBudget:
    """Grants second requests, a share of the first. Threads: any."""

    def __init__(self) -> None:
        """Begin with a full purse."""
        self._lock: Final = threading.Lock()
        self._earned = _EARNED_MAX

    def earn(self) -> None:
        """Note a first request."""
        with self._lock:
            self._earned = min(self._earned + _EARNED, _EARNED_MAX)

    def spend(self) -> bool:
        """Say whether a second request may be sent now."""
        with self._lock:
            if self._earned < 1.0:
                return False
            self._earned -= 1.0
            return True
