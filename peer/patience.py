"""How long one call waits for all the peers that it asks, one after the other.

A peer that is busy with a miss says so again and again, and is waited for; one that is dead says nothing. So
it is silence that is bounded, and all of it by an end that no sign of life moves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from forebay.peer.data.deadline import Deadline


class Patience:
    """What is left of it. Threads: owner only; ``deadline`` any.

    The first peer may be silent for the whole time-out, and those after it, all together, for half of it: so
    a call that meets dead peers only ends one and a half time-outs after the last sign of life.
    """

    def __init__(self, timeout_s: float, total_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        """Begin now; the call may take total_s in all, whatever signs of life there are."""
        self._timeout_s: Final = timeout_s
        self._until_s: Final = now_s() + total_s
        self._now_s: Final = now_s
        self._silence_s = timeout_s + timeout_s / 2

    @property
    def is_over(self) -> bool:
        """Whether nobody is to be asked any more."""
        return self._silence_s <= 0 or self._now_s() >= self._until_s

    def deadline(self) -> Deadline:
        """Return the deadline of the next peer."""
        return Deadline(min(self._timeout_s, self._silence_s), self._until_s)

    def spend(self, silent_s: float) -> None:
        """Take off what was spent in silence on a peer that did not answer."""
        self._silence_s -= silent_s
