"""Whether anybody watches: every watcher holds one file of the cache locked, shared with the others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from forebay.cache.locks import is_locked, try_lock

FILE_NAME: Final = "watchers"

_FILE_MODE: Final = 0o600
_SHARED_FILE_MODE: Final = 0o660


class Presence:
    """Who watches one cache directory. Threads: any."""

    def __init__(self, folder: Path, shared_group: int | None = None) -> None:
        """Name the folder of the file; nothing is made."""
        self._path: Final = folder / FILE_NAME
        self._shared_group: Final = shared_group

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Be one that watches, meanwhile. Raises: OSError."""
        lock = try_lock(self._open(), shared=True)
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def is_watched(self) -> bool:
        """Say whether a live process watches."""
        try:
            return is_locked(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:
            return False

    def _open(self) -> int:
        mode = _FILE_MODE if self._shared_group is None else _SHARED_FILE_MODE
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        if self._shared_group is not None and os.fstat(descriptor).st_uid == os.geteuid():
            os.fchown(descriptor, -1, self._shared_group)
            os.fchmod(descriptor, mode)
        return descriptor
