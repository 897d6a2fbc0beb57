"""What goes wrong in a loop that is to go on all the same: each kind of it is logged once, with a traceback.

A kind is what was raised and where. A loop that ended by it would leave a member blind or silent for good,
and one that logged each turn would fill the disk.
"""

from __future__ import annotations

import logging
import traceback
from typing import Final

# As many lines of a program as can go wrong one after the other; what comes after them is not logged.
_KINDS_MAX: Final = 64

# The exception, and the file and line that raised it.
_Kind = tuple[type[Exception], tuple[str, int | None] | None]


class Failures:
    """The kinds that one loop has met. Threads: any."""

    def __init__(self, log: logging.Logger, words: str) -> None:
        """Log there; words say what could not be done, and what becomes of it."""
        self._log: Final = log
        self._words: Final = words
        self._kinds: Final[set[_Kind]] = set()

    def tell(self, error: Exception) -> None:
        """Log an exception, unless one of its kind was."""
        kind = _kind_of(error)
        if kind not in self._kinds and len(self._kinds) < _KINDS_MAX:
            self._kinds.add(kind)
            self._log.error("%s (further ones of this kind are not logged)", self._words, exc_info=error)


def _kind_of(error: Exception) -> _Kind:
    frames = traceback.extract_tb(error.__traceback__)
    return type(error), (frames[-1].filename, frames[-1].lineno) if frames else None
