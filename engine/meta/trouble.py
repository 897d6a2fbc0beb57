"""What a process has come upon in its entries that it could not read or write: told of once, and counted."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import lmdb

from forebay.meta.repair import is_damage

_log = logging.getLogger(__name__)


class Trouble:
    """Threads: any."""

    def __init__(self, on_damage: Callable[[], None] | None) -> None:
        """Begin with none; on_damage is called once, if LMDB cannot read its file."""
        self.has_failed = False
        self.damaged_rows = 0
        self._on_damage = on_damage
        self._lock: Final = threading.Lock()

    def note_failure(self, error: Exception) -> None:
        """Note that a transaction came to nothing, and that whoever wanted it goes on without."""
        if not self.has_failed:
            _log.warning("metadata is not kept, reads go on without: %s", error)
        self.has_failed = True
        self.note_error(error)

    def note_error(self, error: Exception) -> None:
        """Have a file that LMDB cannot read out of the way of its next opener."""
        on_damage = self._on_damage
        if on_damage is not None and is_damage(error):
            self._on_damage = None
            with suppress(OSError):
                on_damage()

    def note_damaged_rows(self, count: int) -> None:
        """Count rows that were a miss because they are damaged."""
        with self._lock:
            if not self.damaged_rows:
                _log.warning("metadata is damaged; what it said there is asked of the under storage again")
            self.damaged_rows += count


def as_os_error(error: lmdb.Error | OSError, path: str) -> OSError:
    """Return what to raise for an error where nobody goes on without; it names the file."""
    if isinstance(error, OSError):
        return error
    # LMDB's own errors have negative codes, and come with words for them; positive ones are the system's.
    code = getattr(error, "code", 0)
    if not isinstance(code, int) or code <= 0:
        code = errno.ENOSPC if isinstance(error, lmdb.MapFullError) else errno.EIO
    return OSError(code, f"metadata could not be read or written: {error}", path)
