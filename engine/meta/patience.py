"""Patience: for how long a writer waits for others.

Not for a time that is given: on a busy machine the last of many waits long though all goes well, and what it
has to write would be lost for nothing. It waits while others commit, and gives up when for a time nobody has.
So whoever is stopped holds a writer up for that time, and a crowd does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# In all, whatever others commit: their turns go by chance, and a read may wait for this one.
_BOUND_S: Final = 30.0


class Patience:
    """How long one writer waits; for one thread."""

    __slots__ = ("_begun", "_deadline", "_last_commit", "_moved", "_newest", "_still_s")

    def __init__(self, still_s: float, last_commit: Callable[[], int]) -> None:
        """Begin to wait: for still_s from now, and from each time that last_commit tells another number."""
        self._last_commit: Final = last_commit
        self._newest: int | None = None
        self._still_s: Final = still_s
        self._begun = self._moved = time.monotonic()
        self._deadline = self._begun + still_s

    def left_s(self) -> float:
        """Return how long to wait on, if nothing is committed meanwhile; 0 or less: no longer."""
        now = time.monotonic()
        newest = self._last_commit()
        if newest != self._newest:
            if self._newest is not None:
                bound = self._begun + max(self._still_s, _BOUND_S)
                self._moved, self._deadline = now, min(now + self._still_s, bound)
            self._newest = newest
        return self._deadline - now

    def still_s(self) -> float:
        """Return for how long nobody is known to have committed."""
        return time.monotonic() - self._moved
