"""How fast a server may be asked: a rate of requests that gives way when the server says so, and recovers.

Unlimited until the server first refuses for load (503, 429). Then the rate is halved, at most once in the
time that the requests already on their way need to come back, and grows again by equal steps; well above
where it was cut the limit is lifted. Waiting is by a bucket of tokens that all threads share. While there is
no limit a request costs one clock reading and one append.
Source: additive increase, multiplicative decrease: Chiu and Jain, 1989, section 3; tokens: RFC 2697,
section 3, with one rate.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from forebay.ufs._stop import Stop

# Requests that were under way when the rate was cut are refused too, and say nothing new.
_REACTION_S: Final = 0.5
_DECREASE: Final = 0.5
# Of the rate at the cut, added each second: back there after ten seconds, lifted after thirty.
_INCREASE_A_SECOND: Final = 0.05
# And not less than so many requests a second: what was measured at a start may be far too little.
_INCREASE_MIN: Final = 10.0
_LIFTED_AT: Final = 2.0
_RATE_MIN: Final = 5.0
_BURST_S: Final = 0.1
_STEP_S: Final = 1.0
_MEASURED_REQUESTS: Final = 1_024
_MEASURED_S: Final = 1.0
# A burst shorter than this is no rate.
_MEASURED_S_MIN: Final = 0.1


class Throttle:
    """The rate at which one server is asked by this process. Threads: any."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without a limit; clock is for tests without waiting."""
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._recent: Final[deque[float]] = deque(maxlen=_MEASURED_REQUESTS)
        self._fixed: float | None = None
        self._cut_at: float | None = None
        self._cut_to = 0.0
        self._cut_from = 0.0
        self._tokens = 0.0
        self._filled_at = 0.0
        self._queued = 0
        # Read without the lock, for the sake of servers that are never throttled.
        self._limited = False
        self.throttled = 0

    def limit(self, requests_per_s: float) -> None:
        """Hold to this rate at most from now on; of several limits the lowest holds."""
        with self._lock:
            self._fixed = min(requests_per_s, self._fixed or requests_per_s)
            self._limited = True

    def admit(self, stop: Stop) -> float:
        """Wait until one more request may be sent, or stop is set; return how many seconds that took."""
        self._recent.append(self._clock())
        return self._wait(stop) if self._limited else 0.0

    def slow_down(self) -> None:
        """Take note that the server has refused a request for load."""
        with self._lock:
            self.throttled += 1
            now = self._clock()
            if self._cut_at is not None and now < self._cut_at + _REACTION_S:
                return
            rate = self._rate(now) or self._measured(now)
            self._cut_from = rate
            self._cut_to = max(rate * _DECREASE, _RATE_MIN)
            self._cut_at = self._filled_at = now
            self._tokens = 0.0
            self._limited = True

    @property
    def rate(self) -> float | None:
        """Requests a second that are let through at the moment; None: no limit."""
        with self._lock:
            return self._rate(self._clock())

    def _rate(self, now: float) -> float | None:
        adaptive: float | None = None
        if self._cut_at is not None:
            step = max(_INCREASE_A_SECOND * self._cut_from, _INCREASE_MIN)
            adaptive = self._cut_to + (now - self._cut_at) * step
            if adaptive >= max(self._cut_from, self._cut_to) * _LIFTED_AT:
                self._cut_at = adaptive = None
                self._limited = self._fixed is not None
        if adaptive is None or self._fixed is None:
            return self._fixed if adaptive is None else adaptive
        return min(adaptive, self._fixed)

    def _measured(self, now: float) -> float:
        """Return at what rate requests were sent lately."""
        recent = [sent for sent in tuple(self._recent) if now - sent < _MEASURED_S]
        return len(recent) / max(now - recent[0], _MEASURED_S_MIN) if len(recent) > 1 else 1.0

    def _wait(self, stop: Stop) -> float:
        started = self._clock()
        with self._lock:
            self._queued += 1
        try:
            turn, _ = self._take()
            while turn > 0 and not stop.wait(min(turn, _STEP_S)):
                # Whoever has waited for its turn does not wait for the whole queue again.
                _, turn = self._take()
        finally:
            with self._lock:
                self._queued -= 1
        return self._clock() - started

    def _take(self) -> tuple[float, float]:
        """Take a token. Returns zeros, or how long the queue is and how long one token takes, in seconds."""
        with self._lock:
            now = self._clock()
            rate = self._rate(now)
            if rate is None:
                return 0.0, 0.0
            grown = self._tokens + (now - self._filled_at) * rate
            self._tokens = min(grown, max(rate * _BURST_S, 1.0))
            self._filled_at = now
            if self._tokens >= 1.0:
                self._tokens -= 1.0
                return 0.0, 0.0
            return max(self._queued - self._tokens, 0.0) / rate, 1.0 / rate
