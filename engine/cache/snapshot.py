"""The reads of a snapshot that need more than a look at the store: parts of it, and what is not cached."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from forebay.cache.file import FileSource
    from forebay.cache.node_file import NodeFile


class Ranges:
    """One version of an object, to be read by ranges. Threads: any. Does not survive a fork."""

    __slots__ = ("_file", "_lock", "_make_file", "_make_source", "_size", "_source")

    def __init__(
        self,
        size: int,
        make_source: Callable[[], FileSource],
        make_file: Callable[[], NodeFile],
    ) -> None:
        """Take a version's size in bytes; what reads it is made when it is first needed."""
        self._size: Final = size
        self._make_source: Final = make_source
        self._make_file: Final = make_file
        # One fills buffers, one returns views.
        self._source: FileSource | None = None
        self._file: NodeFile | None = None
        self._lock: Final = threading.Lock()

    def readinto(self, buffer: Any, offset: int) -> int:
        """Fill a buffer from offset on; return how many bytes, fewer only at the object's end.

        Raises: Stale, once there is another version; ValueError (negative offset); TypeError (another
        buffer); as ``Cache.readinto``.
        """
        target = memoryview(buffer).cast("B")
        if target.readonly:
            raise TypeError("readinto needs a writable buffer")
        if offset < 0:
            raise ValueError(f"offset {offset} is negative")
        length = min(len(target), max(self._size - offset, 0))
        if length:
            self._fill(target[:length], offset)
        return length

    def known(self, offset: int, length: int) -> memoryview | None:
        """Return a range, less at the object's end, if it lies in one block, in memory; else None.

        Never waits: for nobody, nor for a disk. Raises: Stale.
        """
        return self._own_file().glanced(offset, length)

    def read(self, offset: int, length: int) -> memoryview:
        """Return a range, less at the object's end; of one block of a memory tier without a copy.

        Raises: Stale; as ``Cache.read``.
        """
        return self._own_file().read(offset, length)

    def close(self) -> None:
        """Give up what was fetched ahead; may be called twice."""
        with self._lock:
            if self._source is not None:
                self._source.close()
            if self._file is not None:
                self._file.close()

    def _own_file(self) -> NodeFile:
        if self._file is None:
            with self._lock:
                if self._file is None:
                    self._file = self._make_file()
        return self._file

    def _fill(self, target: memoryview, offset: int) -> None:
        with self._lock:
            source = self._source
            if source is None:
                source = self._source = self._make_source()
            source.check()
            source.reads(offset, offset + len(target))
        source.gather(offset, target)
