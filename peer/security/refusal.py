"""A refusal: bland for who was refused, with its reason for the log of who refuses."""

from __future__ import annotations

import errno
import logging
import time
from typing import Final

_log: Final = logging.getLogger(__name__)

_LINES_PER_S: Final = 20


class Refused(PermissionError):  # noqa: N818  (public names say what happened)
    """The caller may not do this, or has not shown who he is.

    Its text is all that the caller may see; reason is for the log, and holds no secret either.
    """

    def __init__(self, reason: str, *, is_unauthenticated: bool = False) -> None:
        """Tell with is_unauthenticated that the token itself is not good, whatever is asked with it."""
        super().__init__(errno.EACCES, "not authenticated" if is_unauthenticated else "permission denied")
        self.reason = reason
        self.is_unauthenticated = is_unauthenticated

    def __reduce__(self) -> tuple[object, ...]:
        """Leave the reason out of pickles: they go to who was refused."""
        return _without_reason, (self.is_unauthenticated,)


def _without_reason(is_unauthenticated: bool) -> Refused:
    return Refused("", is_unauthenticated=is_unauthenticated)


class RefusalLog:
    """Logs refusals, so many a second at most: whoever is refused may try without end. Threads: any."""

    def __init__(self) -> None:
        """Begin with none."""
        self.count = 0
        self._second = 0
        self._lines = 0

    def tell(self, what: str, address: str, refused: Refused) -> None:
        """Log one refusal of what was asked from the address, unless there were too many in this second."""
        self.count += 1
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines <= _LINES_PER_S:
            _log.warning("refused %r from %s: %s", what, address, refused.reason)
        elif self._lines == _LINES_PER_S + 1:
            _log.warning("refused more in this second than are logged; %d since the start", self.count)
