"""How often and how long a failing request is tried again: one budget for each operation.

An operation is a request, or a body with all that it takes to get it. What may pass is tried again after a
pause with full jitter, so that readers that failed together do not come back together; everything else is
raised at once.
Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from forebay.errors import timed_out
from forebay.ufs._s3_errors import Failed, Failure, Kind
from forebay.ufs._stop import Stop
from forebay.ufs._throttle import Throttle

_T = TypeVar("_T")

CONNECT_TIMEOUT_S: Final = 5.0
_PAUSE_S: Final = 0.1
_PAUSE_MAX_S: Final = 5.0
_PAUSE_THROTTLED_MAX_S: Final = 1.0
# A server that asks for patience gets it: it answers, and the throttle sees to the rate.
_ATTEMPTS_THROTTLED: Final = 3
# A body slower than this for all its length is as good as none.
_BYTES_A_SECOND_MIN: Final = 64 << 10


@dataclass(frozen=True)
class Policy:
    """What an attachment allows: attempts for an operation, and how long a socket may be silent."""

    attempts: int
    timeout_s: float

    def deadline_s(self, length_bytes: int) -> float:
        """Return how long an operation that brings this many bytes may take with all its attempts."""
        return self.attempts * (CONNECT_TIMEOUT_S + self.timeout_s) + length_bytes / _BYTES_A_SECOND_MIN


class Tries:
    """The budget of one operation. For one thread."""

    def __init__(
        self,
        policy: Policy,
        throttle: Throttle,
        note: Callable[[Failure], None],
        stop: Stop,
        uri: str,
        length_bytes: int = 0,
    ) -> None:
        """Begin; note is told each failure, and the time for length_bytes is part of the deadline.

        Once stop is set nothing is tried any more.
        """
        self._policy: Final = policy
        self._throttle: Final = throttle
        self._note: Final = note
        self._stop: Final = stop
        self._uri: Final = uri
        self._deadline_s = time.monotonic() + policy.deadline_s(length_bytes)
        self._failed = 0
        self._throttled = 0

    def admit(self) -> None:
        """Wait for the server's turn, which takes nothing from the budget. Raises: Closed."""
        if waited_s := self._throttle.admit(self._stop):
            self._deadline_s += waited_s
        self._stop.check(self._uri)

    def check(self) -> None:
        """Raise TimeoutError when the operation has gone on for too long, Closed when it is to stop."""
        self._stop.check(self._uri)
        if time.monotonic() > self._deadline_s:
            raise timed_out(self._uri, "timed out: the answer comes too slowly")

    def after(self, failed: Failed) -> None:
        """Pause before the next attempt, or raise what the failure means if there is to be none.

        Raises: Closed.
        """
        failure = failed.failure
        self._note(failure)
        pause_s = self._pause_s(failure) if failure.passing else None
        if pause_s is None or time.monotonic() + pause_s > self._deadline_s:
            raise failure.exception(self._uri) from (failed.__cause__ or failed)
        self._stop.pause(pause_s, self._uri)

    def run(self, request: Callable[[], _T]) -> _T:
        """Return what the request returns at last. Raises: what its failure means."""
        while True:
            self.admit()
            try:
                return request()
            except Failed as failed:
                self.after(failed)

    def _pause_s(self, failure: Failure) -> float | None:
        """Return how long to pause, None if the attempts are used up."""
        pause_max_s = _PAUSE_MAX_S
        if failure.kind is Kind.THROTTLED:
            self._throttle.slow_down()
            self._throttled += 1
            pause_max_s = _PAUSE_THROTTLED_MAX_S
        else:
            self._failed += 1
        attempts, spent = self._policy.attempts, self._failed + self._throttled
        if self._failed >= attempts or spent >= _ATTEMPTS_THROTTLED * attempts:
            return None
        return random.uniform(0.0, min(pause_max_s, _PAUSE_S * 2**spent))
