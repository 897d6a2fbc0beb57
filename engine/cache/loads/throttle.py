"""When a load may make its next request: by its own rate, and behind the host's readers.

Nobody sleeps here: a thread that may not go on now is told when to ask again, and is free for others until
then. Source of the bucket: RFC 2697, section 3, with one rate and a burst of a fifth of a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

_BURST_S: Final = 0.2
# While readers wait for the under storage, a load keeps to so many requests at a time, and looks this often
# whether they still do.
_REQUESTS_BESIDE_READERS: Final = 2
_LOOK_AGAIN_S: Final = 0.01


class NotNow(Exception):  # noqa: N818  (nothing went wrong)
    """The request is not to be made before so many seconds have passed."""

    def __init__(self, wait_s: float) -> None:
        """Tell when to ask again."""
        super().__init__(f"not within {wait_s:.3f} s")
        self.wait_s: Final = wait_s


class TokenBucket:
    """Grants bytes at a rate, however many threads ask. Threads: any."""

    def __init__(self, bytes_per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start full; the caller guarantees a rate above zero."""
        self._rate: Final = bytes_per_second
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._level = bytes_per_second * _BURST_S
        self._filled_at = clock()

    def try_take(self, count_bytes: int) -> float:
        """Take the bytes and return 0, or take nothing and return in how many seconds that may succeed.

        Only what was taken before has to be paid for: a request above the burst is granted where nothing is
        owed, and is owed then.
        """
        with self._lock:
            self._fill()
            # Less than a byte is not waited for: the clock might be too coarse to tell when it is there.
            if self._level <= -1:
                return -self._level / self._rate
            self._level -= count_bytes
            return 0.0

    def owe(self, count_bytes: int) -> None:
        """Take bytes whose number was not known when they were asked for."""
        with self._lock:
            self._fill()
            self._level -= count_bytes

    def _fill(self) -> None:
        now = self._clock()
        grown = self._level + (now - self._filled_at) * self._rate
        self._level = min(grown, self._rate * _BURST_S)
        self._filled_at = now


class Turn:
    """The one place that a run's requests pass. Threads: any."""

    def __init__(self, bytes_per_second: int | None, readers_wait: Callable[[], bool]) -> None:
        """Keep to a rate if there is one, and behind readers where readers_wait says that there are some."""
        self._bucket: Final = None if bytes_per_second is None else TokenBucket(bytes_per_second)
        self._readers_wait: Final = readers_wait
        self._lock: Final = threading.Lock()
        self._requests = 0

    def of(self, count_bytes: int) -> Turn:
        """Begin a request for so many bytes; the context that this gives ends it. Raises: NotNow."""
        with self._lock:
            if self._requests >= _REQUESTS_BESIDE_READERS and self._readers_wait():
                raise NotNow(_LOOK_AGAIN_S)
            wait_s = 0.0 if self._bucket is None else self._bucket.try_take(count_bytes)
            if wait_s > 0:
                raise NotNow(wait_s)
            self._requests += 1
        return self

    def __enter__(self) -> None:
        """Go on with the request that ``of`` began."""

    def __exit__(self, *exception: object) -> None:
        """End it."""
        with self._lock:
            self._requests -= 1

    def owe(self, count_bytes: int) -> None:
        """Count bytes against the rate whose number was not known before."""
        if self._bucket is not None:
            self._bucket.owe(count_bytes)
