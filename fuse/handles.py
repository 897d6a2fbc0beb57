"""What is open on a mount: numbers for the kernel, bounded, each standing for a file or a directory."""

from __future__ import annotations

import errno
import os
from itertools import count
from typing import Final, Generic, TypeVar

_T = TypeVar("_T")

FILES_MAX: Final = 65_536
DIRECTORIES_MAX: Final = 1_024


class Handles(Generic[_T]):
    """Open things of one kind by number. Threads: any."""

    def __init__(self, what: str, count_max: int) -> None:
        """Hold at most count_max; what they are called in an error."""
        self.count_max: Final = count_max
        self._what: Final = what
        # None: it is about to be opened.
        self._open: Final[dict[int, _T | None]] = {}
        self._numbers: Final = count(1)

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def add(self, opened: _T) -> int:
        """Return a number for something that was opened. Raises: as ``reserve``."""
        number = self.reserve()
        self.put(number, opened)
        return number

    def reserve(self) -> int:
        """Return a number for what is about to be opened, or is to be removed. Raises: OSError (ENFILE)."""
        if len(self._open) >= self.count_max:
            raise OSError(errno.ENFILE, f"more than {self.count_max} {self._what} are open on this mount")
        number = next(self._numbers)
        self._open[number] = None
        return number

    def put(self, number: int, opened: _T) -> None:
        """Have a number that was reserved stand for something."""
        self._open[number] = opened

    def get(self, number: int) -> _T:
        """Return what has that number. Raises: OSError (EBADF)."""
        opened = self._open.get(number)
        if opened is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return opened

    def remove(self, number: int) -> _T | None:
        """Forget a number; return what had it."""
        return self._open.pop(number, None)

    def remove_all(self) -> list[_T]:
        """Forget all; return what they stood for."""
        opened = [one for one in self._open.values() if one is not None]
        self._open.clear()
        return opened
