"""A file that is open for writing: staged, and written to the under storage when it is closed.

Nothing is written without an orderly close: not after an exception in its ``with`` block, not when the
process dies, and not when the file is just dropped.
"""

from __future__ import annotations

import errno
import io
import os
from typing import Any, Final, Protocol

from forebay.cache.seek import sought_position
from forebay.cache.writes.discarding import DiscardingFile
from forebay.cache.writes.staging import Staged
from forebay.config import MIB
from forebay.ufs.payload import BytesPayload, Payload

# What is kept in memory before it is staged: small files are never staged.
_BUFFER_BYTES: Final = MIB


class Target(Protocol):
    """The object that is written, and where it is staged until then."""

    def stage(self) -> Staged:
        """Begin a staged file. Raises: OSError."""
        ...

    def unstage(self, staged: Staged) -> None:
        """Remove it."""
        ...

    def commit(self, payload: Payload, staged: Staged | None) -> None:
        """Write the payload, which is what was staged if anything was. Raises: as ``Cache.put``."""
        ...


class WritableFile(DiscardingFile):
    """An object of an attached dataset, open for writing; made by ``Cache.open``.

    A binary file as the io module has them: it seeks within what was written and beyond, with zeros in
    between; it cannot be read. ``close`` writes the object, and raises what that comes to; ``discard``
    closes it and writes nothing, as do an exception in the ``with`` block and dropping it. Threads: one at
    a time. In a child of a fork it is closed: it is the parent's. It cannot be pickled.
    """

    def __init__(self, name: str, mode: str, target: Target, bytes_max: int | None = None) -> None:
        """Begin with nothing; bytes_max is as long as it may become."""
        super().__init__()
        self.name: Final = name
        self.mode: Final = mode
        self._target: Final = target
        self._bytes_max: Final = bytes_max
        self._pid: Final = os.getpid()
        self._staged: Staged | None = None
        # The bytes before the position that are not staged yet.
        self._buffer = bytearray()
        self._position = 0
        self._size = 0
        self._failure: OSError | None = None

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position, which may lie behind the end, and return it.

        Raises: ValueError (before the beginning; another whence); OSError (as ``write``).
        """
        self._check_open()
        position = sought_position(offset, whence, self._position, self._size)
        if position != self._position:
            self._flush_buffer()
            self._position = position
        return position

    def write(self, data: Any, /) -> int:
        """Take all of the bytes; return how many.

        Raises: OSError (staging: ENOSPC; EDQUOT, staging_max; EFBIG). Nothing is written then, neither by
        this nor by ``close``.
        """
        self._check_open()
        view = memoryview(data).cast("B")
        count, end = len(view), self._position + len(view)
        if self._bytes_max is not None and end > self._bytes_max:
            words = f"the storage creates objects of up to {self._bytes_max} bytes exclusively"
            raise self._failed(OSError(errno.EFBIG, words, self.name))
        if len(self._buffer) + count > _BUFFER_BYTES:
            self._flush_buffer()
        if count > _BUFFER_BYTES:
            self._write_staged(self._position, view)
        else:
            self._buffer += view
        self._position = end
        self._size = max(self._size, end)
        return count

    def flush(self) -> None:
        """Do nothing: what was written is nowhere before ``close``."""
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def close(self) -> None:
        """Write the object; may be called twice.

        Raises: as ``Cache.put``; OSError (an earlier write failed).
        """
        if self.closed:
            return
        try:
            if self._pid == os.getpid():
                if self._failure is not None:
                    raise self._failure
                self._target.commit(self._payload(), self._staged)
        finally:
            self.discard()

    def discard(self) -> None:
        """Close, and leave the under storage as it is. May be called twice."""
        staged, self._staged = self._staged, None
        self._buffer = bytearray()
        if staged is not None and self._pid == os.getpid():
            self._target.unstage(staged)
        if not self.closed:
            super().close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be pickled. Raises: TypeError."""
        raise TypeError(f"{self!r} cannot be pickled; pickle the Cache and open {self.name!r} there")

    def __repr__(self) -> str:
        """Name the object."""
        return f"<forebay.WritableFile {self.name!r}{' (closed)' if self.closed else ''}>"

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        if self._pid != os.getpid():
            raise ValueError(f"{self.name}: it was opened by the parent of this process")
        if self._failure is not None:
            raise self._failure

    def _failed(self, error: OSError) -> OSError:
        self._failure = error
        return error

    def _flush_buffer(self) -> None:
        """Stage what is buffered, which ends at the position."""
        if self._buffer:
            self._write_staged(self._position - len(self._buffer), memoryview(bytes(self._buffer)))
            self._buffer.clear()

    def _write_staged(self, offset: int, data: memoryview) -> None:
        try:
            if self._staged is None:
                self._staged = self._target.stage()
            self._staged.file.write(offset, data)
        except OSError as error:
            raise self._failed(error) from None

    def _payload(self) -> Payload:
        """Return all that was written."""
        if self._staged is None and len(self._buffer) == self._size:
            return BytesPayload(bytes(self._buffer))
        self._flush_buffer()
        if self._staged is None:
            self._staged = self._target.stage()
        return self._staged.file.finish(self._size)
