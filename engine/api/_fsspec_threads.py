"""Threads for blocking calls of asynchronous methods: so many at a time, left behind where they have to be.

An executor's threads would be waited for when the interpreter ends, also those of calls that were given up,
to a storage that is silent.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Final, TypeVar

from forebay.cache.workers import Workers

_T = TypeVar("_T")


class Threads:
    """Makes calls in threads, in the order in which they are submitted. Threads: any; of one process."""

    def __init__(self, count_max: int) -> None:
        """Start none yet, and never more than so many."""
        self._count_max: Final = count_max
        self._workers: Final = Workers("forebay-api")
        self._lock: Final = threading.Lock()
        self._waiting: Final[deque[Callable[[], None]]] = deque()
        self._busy_count = 0

    def submit(self, call: Callable[[], _T]) -> Future[_T]:
        """Have a thread make the call; one that is cancelled before it begins is not made.

        Raises: RuntimeError (the interpreter ends).
        """
        future: Future[_T] = Future()
        with self._lock:
            self._waiting.append(partial(_settle, future, call))
            is_one_more = self._busy_count < self._count_max
            self._busy_count += is_one_more
        if is_one_more:
            self._workers.run(self._serve)
        return future

    def _serve(self) -> None:
        """Make calls until none waits."""
        while (work := self._next()) is not None:
            work()

    def _next(self) -> Callable[[], None] | None:
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._busy_count -= 1
            return None


def _settle(future: Future[_T], call: Callable[[], _T]) -> None:
    """Make a call, and tell what it came to."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001  (whatever it is, it belongs to whoever waits)
        future.set_exception(error)
    else:
        future.set_result(result)
