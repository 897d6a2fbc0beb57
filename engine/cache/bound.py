"""Numbers that a process has bound to paths, whatever number their entries have.

A file that is made has a number before anything knows of it, and one that is renamed keeps the one that it
had: whoever was told it goes on by it. Those that were used longest ago give way.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final


class Bound:
    """Path <-> number, one to one. Threads: any."""

    def __init__(self, count_max: int) -> None:
        """Keep so many."""
        self._count_max: Final = count_max
        self._lock: Final = Lock()
        self._numbers: Final[OrderedDict[str, int]] = OrderedDict()
        self._paths: Final[dict[int, str]] = {}

    def __len__(self) -> int:
        """Return how many are bound."""
        return len(self._numbers)

    def number_of(self, path: str) -> int | None:
        """Return the number that is bound to a path."""
        return self._numbers.get(path)

    def path_of(self, number: int) -> str | None:
        """Return the path that a number is bound to."""
        return self._paths.get(number)

    def bind(self, path: str, number: int) -> None:
        """Bind a number to a path, and to no other any more."""
        with self._lock:
            self._drop(self._paths.get(number))
            self._drop(path)
            self._numbers[path] = number
            self._paths[number] = path
            if len(self._numbers) > self._count_max:
                self._drop(next(iter(self._numbers)))

    def release(self, path: str) -> None:
        """Bind nothing to a path any more."""
        with self._lock:
            self._drop(path)

    def below(self, directory: str) -> list[tuple[str, int]]:
        """Return the paths below a directory, and their numbers."""
        with self._lock:
            return [each for each in self._numbers.items() if each[0].startswith(f"{directory}/")]

    def _drop(self, path: str | None) -> None:
        if path is not None and path in self._numbers:
            del self._paths[self._numbers.pop(path)]
