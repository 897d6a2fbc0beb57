"""How long a peer lately took to the first sign of life: what hedging goes by."""

from __future__ import annotations

from collections import deque
from typing import Final

_KEPT: Final = 256


class Latency:
    """The last few hundred waits. Threads: any."""

    def __init__(self) -> None:
        """Begin with none."""
        self._waits_s: Final[deque[float]] = deque(maxlen=_KEPT)

    def add(self, wait_s: float) -> None:
        """Note one."""
        self._waits_s.append(wait_s)

    def percentile_s(self, percent: float) -> float | None:
        """Return the wait that so many percent of them do not exceed; None when there are none yet."""
        waits_s = sorted(self._waits_s.copy())
        if not waits_s:
            return None
        return waits_s[min(int(len(waits_s) * percent / 100), len(waits_s) - 1)]
