"""One object for each process: made at its first use there, never carried over by fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

_T = TypeVar("_T")

_generation = 0
_inherited: list[Any] = []


def _count_fork() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_count_fork)


class PerProcess(Generic[_T]):
    """Holds what must not be used on both sides of a fork: connections, threads.

    Threads: any. A child makes its own. What it inherited is kept, unused, for closing it might touch what
    the parent still uses.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        """Remember how to make one; make none yet."""
        self._make: Final = make
        # A lock held by another thread at the fork stays locked in the child, so each generation has its own.
        self._locks: Final[dict[int, threading.Lock]] = {}
        self._made: tuple[int, _T] | None = None

    def get(self) -> _T:
        """Return this process's object, making it if there is none."""
        made = self._made
        if made is not None and made[0] == _generation:
            return made[1]
        with self._locks.setdefault(_generation, threading.Lock()):
            if self._made is None or self._made[0] != _generation:
                if self._made is not None:
                    _inherited.append(self._made)
                self._made = (_generation, self._make())
            return self._made[1]

    def take(self) -> _T | None:
        """Return this process's object and forget it, for the caller to close; None if there is none."""
        with self._locks.setdefault(_generation, threading.Lock()):
            made, self._made = self._made, None
            if made is None or made[0] == _generation:
                return None if made is None else made[1]
            _inherited.append(made)
            return None
