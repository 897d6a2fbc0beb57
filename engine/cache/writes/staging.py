"""Staging: what is written piece by piece lies on local disk until all of it is there.

All staged files of a folder together stay within staging_max, whoever writes them: a file is as long as what
its writer has reserved, so that the sum is told by the files themselves and nothing is left wrong by a kill.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Any, Final, NamedTuple

from forebay.cache.folder import PrivateFolder
from forebay.cache.locks import wait_lock
from forebay.cache.writes.tickets import Ticket
from forebay.config import MIB
from forebay.ufs.payload import FilePayload

_SUFFIX: Final = ".staged"
_SPACE_LOCK: Final = "space.lock"
# What is reserved at a time, growing with the file.
_STEP_BYTES_MIN: Final = 4 * MIB
_STEP_BYTES_MAX: Final = 64 * MIB


class Staged(NamedTuple):
    """A staged file, and the ticket by which it is found if its writer is killed."""

    ticket: Ticket
    file: StagedFile


class Staging:
    """The staged files of one folder. Threads: any."""

    def __init__(self, folder: PrivateFolder, bytes_max: int) -> None:
        """Stage in this folder, so many bytes at most."""
        self._folder: Final = folder
        self.bytes_max: Final = bytes_max

    def create(self, name: str) -> StagedFile:
        """Make an empty file of that name. Raises: OSError."""
        file = f"{name}{_SUFFIX}"
        descriptor = self._folder.create(file, os.O_RDWR | os.O_EXCL)
        return StagedFile(self, str(self._folder.path / file), descriptor)

    def path_of(self, name: str) -> str:
        """Return where a staged file of that name lies."""
        return str(self._folder.path / f"{name}{_SUFFIX}")

    def reserve(self, descriptor: int, size: int, wanted: int) -> int:
        """Lengthen a file from size to wanted bytes, or somewhat more; return its length.

        Raises: OSError (EDQUOT with the figures: staging_max; ENOSPC).
        """
        step = min(max(size, _STEP_BYTES_MIN), _STEP_BYTES_MAX)
        with wait_lock(self._folder.create(_SPACE_LOCK, os.O_RDWR)):
            used = self.used_bytes()
            room = self.bytes_max - used
            if wanted - size > room:
                words = (
                    f"staging_max: {used} of {self.bytes_max} bytes are in use, {wanted - size} more wanted"
                )
                raise OSError(errno.EDQUOT, words, str(self._folder.path))
            length = size + min(max(wanted - size, step), room)
            os.ftruncate(descriptor, length)
        return length

    def used_bytes(self) -> int:
        """Add up what is reserved."""
        used = 0
        with suppress(FileNotFoundError), os.scandir(self._folder.path) as entries:
            for entry in entries:
                if entry.name.endswith(_SUFFIX):
                    with suppress(FileNotFoundError):
                        used += entry.stat().st_size
        return used

    def status(self) -> dict[str, Any]:
        """Return use and bound, of the host."""
        return {
            "path": str(self._folder.path),
            "bytes": self.used_bytes(),
            "bytes_max": self.bytes_max,
        }


class StagedFile:
    """One file on its way. For one thread."""

    def __init__(self, staging: Staging, path: str, descriptor: int) -> None:
        """Own the file."""
        self.path: Final = path
        self._staging: Final = staging
        self._descriptor = descriptor
        self._reserved = 0

    def write(self, offset: int, data: memoryview) -> None:
        """Write at an offset. Raises: OSError (names the file; what is full)."""
        end = offset + len(data)
        try:
            if end > self._reserved:
                self._reserved = self._staging.reserve(self._descriptor, self._reserved, end)
            while data:
                count = os.pwrite(self._descriptor, data, offset)
                data, offset = data[count:], offset + count
        except OSError as error:
            if error.filename is None:
                error.filename = self.path
            raise

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that were written, or zeros between them; fewer behind the last. Raises: OSError."""
        return os.pread(self._descriptor, length, offset)

    def resize(self, size: int) -> None:
        """Drop what lies behind size bytes, or have zeros up to there. Raises: as ``write``."""
        try:
            if size > self._reserved:
                self._reserved = self._staging.reserve(self._descriptor, self._reserved, size)
            else:
                self._cut(size)
        except OSError as error:
            if error.filename is None:
                error.filename = self.path
            raise

    def finish(self, size: int) -> FilePayload:
        """Return what was written, which is size bytes; more may be written afterwards. Raises: OSError."""
        self._cut(size)
        return FilePayload(self._descriptor, self.path)

    def _cut(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        self._reserved = size

    def close(self) -> None:
        """Close and remove the file; may be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(FileNotFoundError):
                os.unlink(self.path)
            os.close(descriptor)
