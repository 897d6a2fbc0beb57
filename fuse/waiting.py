"""Waiting for the next request: awake for a moment, and only then asleep.

To wake whoever sleeps on another processor takes 20 us and more, about as long as the answer itself. So when
requests come one close behind the other, whoever waits for the next looks again and again for a moment, and
gives its processor to anything else that could run there meanwhile. A moment that was for nothing is the last
until as many requests have come closely again. So what is idle, or asked now and then, burns nothing, and who
asks in bursts pays for one moment a burst.

Source: docs/fuse.md has the figures. Hosts wait so for their virtual machines (KVM's halt polling).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import perf_counter_ns
from typing import Final

# Longer than a program takes from one answer to its next request, with 100 KiB to copy between.
AWAKE_NS: Final = 60_000
# Who slept for no longer could have been awake instead: a waking is part of it.
CLOSE_NS: Final = 2 * AWAKE_NS
# So many requests pay for a moment that is for nothing.
STREAK: Final = 8

_AT_ONCE: Final = 0
_Ready = list[tuple[int, int]]


class Waiting:
    """Waits by a poll, such as that of ``select.poll``. Threads: one."""

    def __init__(
        self,
        poll: Callable[[int | None], _Ready],
        clock_ns: Callable[[], int] = perf_counter_ns,
        *,
        processors: int | None = None,
    ) -> None:
        """Begin asleep; processors: those that this process may use, by which it may have one for itself."""
        self._poll: Final = poll
        self._clock_ns: Final = clock_ns
        self._may_stay_awake: Final = (processors or len(os.sched_getaffinity(0))) > 1
        # Requests that came closely, one behind the other.
        self._streak = 0

    def wait(self) -> _Ready:
        """Return what is ready, once something is."""
        begun_ns = self._clock_ns()
        if self._streak >= STREAK and self._may_stay_awake:
            ready = self._stay_awake(begun_ns + AWAKE_NS)
            if ready:
                return ready
            self._streak = 0
            return self._poll(None)
        ready = self._poll(None)
        self._streak = self._streak + 1 if self._clock_ns() - begun_ns < CLOSE_NS else 0
        return ready

    def _stay_awake(self, until_ns: int) -> _Ready:
        while not (ready := self._poll(_AT_ONCE)) and self._clock_ns() < until_ns:
            os.sched_yield()
        return ready
