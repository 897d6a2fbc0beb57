"""A folder for whoever may write the cache directory, and for nobody else."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_FOLDER_MODE: Final = 0o700
_SHARED_FOLDER_MODE: Final = 0o2770
_FILE_MODE: Final = 0o600
_SHARED_FILE_MODE: Final = 0o660


class PrivateFolder:
    """A folder of one cache directory. Threads: any; other processes may use it as well."""

    def __init__(self, path: Path, shared_group: int | None = None) -> None:
        """Name a folder; nothing is made."""
        self.path: Final = path
        self._shared_group: Final = shared_group
        self._file_mode: Final = _FILE_MODE if shared_group is None else _SHARED_FILE_MODE

    def make(self) -> None:
        """Make the folder; those above it are there. Raises: OSError (also where it is there already)."""
        self.path.mkdir(mode=_FOLDER_MODE)
        if self._shared_group is not None:
            os.chown(self.path, -1, self._shared_group)
            self.path.chmod(_SHARED_FOLDER_MODE)

    def open(self, name: str, flags: int) -> int:
        """Open a file in it, and make it the group's if it is made. Raises: OSError."""
        descriptor = os.open(self.path / name, flags | os.O_CLOEXEC, self._file_mode)
        if self._shared_group is not None and flags & os.O_CREAT:
            self._share(descriptor, self._shared_group)
        return descriptor

    def create(self, name: str, flags: int) -> int:
        """Open a file that is made if need be, and so is the folder. Raises: OSError."""
        try:
            return self.open(name, flags | os.O_CREAT)
        except FileNotFoundError:
            with suppress(FileExistsError):
                self.make()
        return self.open(name, flags | os.O_CREAT)

    def _share(self, descriptor: int, group: int) -> None:
        if os.fstat(descriptor).st_uid == os.geteuid():
            os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, self._file_mode)
