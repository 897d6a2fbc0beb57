"""Times of files that a mount was told, or has shown, and that the under storage does not keep.

They are shown until the mount ends or the object changes, so that what copies files with their times, or
compares them with what it saw before a close, finds what it expects.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final

_COUNT_MAX: Final = 65_536


class Times:
    """Times by number and version of a file; those set first give way. Threads: any."""

    def __init__(self, count_max: int = _COUNT_MAX) -> None:
        """Keep so many."""
        self._count_max: Final = count_max
        self._lock: Final = Lock()
        self._times: Final[OrderedDict[int, tuple[str, int]]] = OrderedDict()

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self._times)

    def set(self, inode: int, version: str, mtime_ns: int) -> None:
        """Show a time for that version of a file."""
        with self._lock:
            self._times[inode] = (version, mtime_ns)
            self._times.move_to_end(inode)
            if len(self._times) > self._count_max:
                self._times.popitem(last=False)

    def of(self, inode: int, version: str, mtime_ns: int) -> int:
        """Return the time to be shown of a version of a file: what was set, else its own."""
        found = self._times.get(inode)
        return found[1] if found is not None and found[0] == version else mtime_ns
