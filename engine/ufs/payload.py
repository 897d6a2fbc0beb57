"""The bytes of an object that is to be written: in memory, or in a file of this machine."""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from typing import Final


class Payload(ABC):
    """size bytes, the same however often they are read. Threads: any."""

    size: int

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """Return length bytes from offset on, all of which are there. Raises: OSError (names the file)."""

    def check(self) -> None:  # noqa: B027  (memory that was lent stays as it is)
        """Raise OSError if what was read so far may be of several states of the file.

        A storage calls it when it has read all and before anybody can see the object.
        """


class BytesPayload(Payload):
    """Bytes in memory, which the caller leaves alone until they are written."""

    def __init__(self, data: bytes | memoryview) -> None:
        """Take bytes, or a contiguous view of bytes."""
        self._data: Final = data
        self.size = len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Return the very object where all of it is asked for and it is bytes."""
        return bytes(self._data[offset : offset + length])


class FilePayload(Payload):
    """A regular file that the caller keeps open; that it changes meanwhile is noticed."""

    def __init__(self, descriptor: int, name: str) -> None:
        """Take all of an open file; name is what errors call it. Raises: OSError."""
        self.descriptor: Final = descriptor
        self._name: Final = name
        self._state: Final = _state_of(descriptor)
        self.size = self._state[0]

    def read(self, offset: int, length: int) -> bytes:
        """Read by offset."""
        pieces: list[bytes] = []
        end = offset + length
        while offset < end and (piece := os.pread(self.descriptor, end - offset, offset)):
            pieces.append(piece)
            offset += len(piece)
        if offset < end:
            raise OSError(errno.EBUSY, "became shorter while it was read", self._name)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def check(self) -> None:
        """Compare size and times with what they were."""
        if _state_of(self.descriptor) != self._state:
            raise OSError(errno.EBUSY, "changed while it was read", self._name)


def _state_of(descriptor: int) -> tuple[int, int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
