"""Streams of the HDFS-style API: positioned reads of one version; writes that count when they are closed."""

from __future__ import annotations

import io
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, final

if TYPE_CHECKING:
    from forebay.cache import Snapshot
    from forebay.cache.writes.file import WritableFile


@final
class InputStream(io.RawIOBase):
    """A file that is open for reading, in the version that it had then; as FSDataInputStream.

    A raw stream of the io module: ``io.BufferedReader(stream)`` makes many small reads cheap. Positioned
    reads (``read_fully``, ``read_at``) leave the position alone and may come from several threads. Every
    read may raise Stale (another version is known by now), and what ``Cache.read`` raises.
    """

    # Opening and closing is most of what small files cost: no dictionary, and RawIOBase's own idea of being
    # closed, which would be a second one, is never asked.
    __slots__ = ("_is_closed", "_position", "_snapshot")

    def __init__(self, snapshot: Snapshot) -> None:
        """Read a version, which is closed with this."""
        self._snapshot: Final = snapshot
        self._position = 0
        self._is_closed = False

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    @property
    def name(self) -> str:
        """The path of the file in its cache."""
        return self._snapshot.path

    @property
    def snapshot(self) -> Snapshot:
        """What is read: for those who take views of it."""
        return self._snapshot

    @property
    def length(self) -> int:
        """How many bytes the file has."""
        return self._snapshot.size

    @property
    def version(self) -> str:
        """The version that is read."""
        return self._snapshot.version

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer from the position on; return how many bytes, fewer only at the end."""
        self._check_open()
        if self._position >= self.length:
            return 0
        copied = self._snapshot.readinto(buffer, self._position)
        self._position += copied
        return copied

    def readall(self) -> bytes:
        """Return all from the position on."""
        self._check_open()
        data = self.read_at(self._position, max(self.length - self._position, 0))
        self._position += len(data)
        return data

    def read_fully(self, position: int, buffer: Any) -> None:
        """Fill all of a buffer from a position on. Raises: EOFError (the file has not so much there)."""
        if self._is_closed:
            self._check_open()
        if position < 0:
            raise EOFError(f"{self.name}: position {position} is negative")
        if not self._snapshot.fill(buffer, position):
            wanted = memoryview(buffer).nbytes
            raise EOFError(
                f"{self.name}: {wanted} bytes from {position} on, of a file of {self.length} bytes"
            )

    def read_at(self, position: int, length: int) -> bytes:
        """Return length bytes from a position on; fewer only at the end. Raises: ValueError (negative)."""
        self._check_open()
        if length < 0:
            raise ValueError(f"{self.name}: length {length} is negative")
        data = bytearray(min(length, max(self.length - position, 0)))
        self._snapshot.readinto(data, position)
        return bytes(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position, and return it.

        Raises: EOFError (before the beginning or behind the end, as HDFS has it); ValueError (whence).
        """
        self._check_open()
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.length}
        if whence not in bases:
            raise ValueError(f"whence {whence} is none of 0, 1, 2")
        position = bases[whence] + offset
        if not 0 <= position <= self.length:
            raise EOFError(f"{self.name}: no position {position} in a file of {self.length} bytes")
        self._position = position
        return position

    def tell(self) -> int:
        """Return the position."""
        self._check_open()
        return self._position

    def available(self) -> int:
        """Return how many bytes are left behind the position."""
        self._check_open()
        return self.length - self._position

    def close(self) -> None:
        """Close; may be called twice."""
        if not self._is_closed:
            self._is_closed = True
            self._snapshot.close()

    # RawIOBase has both, and asks it by its names for `closed` and `close`: half as quick.
    def __enter__(self) -> Self:
        """Return itself."""
        if self._is_closed:
            self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        if not self._is_closed:
            self._is_closed = True
            self._snapshot.close()

    def flush(self) -> None:
        """Do nothing: nothing is written."""
        self._check_open()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be pickled. Raises: TypeError."""
        raise TypeError(f"{self.name}: an open stream cannot be pickled; open it there")

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("I/O operation on closed file.")


class OutputStream:
    """A file that is open for writing: it is there, whole, when it was closed; as FSDataOutputStream.

    Of an exception in its ``with`` block nothing is left. Threads: one at a time.
    """

    def __init__(self, file: WritableFile) -> None:
        """Write to a file of the cache."""
        self._file: Final = file

    @property
    def name(self) -> str:
        """The path of the file in its cache."""
        return self._file.name

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._file.closed

    def write(self, data: Any, /) -> int:
        """Take all of the bytes; return how many. Raises: as ``WritableFile.write``."""
        return self._file.write(data)

    def tell(self) -> int:
        """Return how much was written."""
        return self._file.tell()

    def flush(self) -> None:
        """Do nothing: what was written is nowhere before ``close``."""
        self._file.flush()

    def hflush(self) -> None:
        """Refuse: nobody else sees a file before it is closed. Raises: io.UnsupportedOperation."""
        raise io.UnsupportedOperation(f"{self.name}: hflush: a file is shown to others when it is closed")

    def hsync(self) -> None:
        """Refuse: nothing of a file lasts before it is closed. Raises: io.UnsupportedOperation."""
        raise io.UnsupportedOperation(f"{self.name}: hsync: a file lasts when it is closed")

    def close(self) -> None:
        """Write the file; may be called twice. Raises: as ``Cache.put``."""
        self._file.close()

    def abort(self) -> None:
        """Close, and leave what there is as it is."""
        self._file.discard()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the file, or leave what there is after an exception."""
        self._file.__exit__(kind, error, trace)
