"""One version of an object, to be read by ranges: what frontends with positioned reads keep open.

As with CachedFile what is read is all of one version; unlike it this has no position, costs little to make,
and may be read by several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from forebay.cache.file import FileSource
from forebay.cache.node_file import NodeFile
from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.meta import Known
    from forebay.store import BlockStore


# Held to give a snapshot its lock.
_MAKING: Final = threading.Lock()


class Snapshot:
    """One version of an object; made by ``Cache.snapshot``. Threads: any. Does not survive a fork.

    Most are opened, read whole and closed: what only other reads need is made by the first of them.
    """

    __slots__ = (
        "_file",
        "_key",
        "_known",
        "_lock",
        "_make_file",
        "_make_source",
        "_note",
        "_source",
        "_store",
        "path",
        "size",
    )

    def __init__(
        self,
        path: str,
        known: Entry | Known,
        key: bytes | None,
        store: BlockStore,
        make_source: Callable[[str, Entry], FileSource],
        make_file: Callable[[str, Entry], NodeFile],
        note: Callable[[str, int, int], None] | None,
    ) -> None:
        """Take a version; key: of the one block that it is, if it is known to be one."""
        self.path: Final = path
        self.size: Final = known.size
        self._known: Final = known
        self._key: Final = key
        self._store: Final = store
        self._make_source: Final = make_source
        self._make_file: Final = make_file
        self._note: Final = note
        # One fills buffers, one returns views.
        self._source: FileSource | None = None
        self._file: NodeFile | None = None
        self._lock: threading.Lock | None = None

    @property
    def version(self) -> str:
        """The version that is read."""
        return self._known.version

    def readinto(self, buffer: Any, offset: int = 0) -> int:
        """Fill a buffer from offset on; return how many bytes, fewer only at the object's end.

        Raises: Stale, once there is another version; ValueError (negative offset); as ``Cache.readinto``.
        """
        target = memoryview(buffer).cast("B")
        if target.readonly:
            raise TypeError("readinto needs a writable buffer")
        if self._key is not None and offset == 0 and len(target) >= self.size:
            copied = self._store.readinto(self._key, target, quiet=True)
            if copied is not None:
                if self._note is not None:
                    self._note(self.path, 0, copied)
                return copied
        if offset < 0:
            raise ValueError(f"offset {offset} is negative")
        length = min(len(target), max(self.size - offset, 0))
        if length:
            self._fill(target[:length], offset)
        return length

    def known(self, offset: int, length: int) -> memoryview | None:
        """Return a range, less at the object's end, if all of it is cached; asks nobody. Raises: Stale."""
        if self._key is not None and offset == 0 and length >= self.size:
            view = self._store.peek(self._key)
            if view is not None:
                if self._note is not None:
                    self._note(self.path, 0, len(view))
                return view[:]
        return self._own_file().known(offset, length)

    def read(self, offset: int, length: int) -> memoryview:
        """Return a range, less at the object's end; of one block of a memory tier without a copy.

        Raises: Stale; as ``Cache.read``.
        """
        return self._own_file().read(offset, length)

    @property
    def block_bytes(self) -> int:
        """How much is fetched at a time: best asked for in pieces that lie within such a one."""
        return self._store.block_bytes

    def close(self) -> None:
        """Give up what was fetched ahead; may be called twice."""
        if self._lock is None:
            return
        with self._lock:
            if self._source is not None:
                self._source.close()
            if self._file is not None:
                self._file.close()

    def _own_file(self) -> NodeFile:
        if self._file is None:
            with self._own_lock():
                if self._file is None:
                    self._file = self._make_file(self.path, self._entry())
        return self._file

    def _fill(self, target: memoryview, offset: int) -> None:
        with self._own_lock():
            source = self._source
            if source is None:
                source = self._source = self._make_source(self.path, self._entry())
            source.check()
            source.reads(offset, offset + len(target))
        source.gather(offset, target)

    def _own_lock(self) -> threading.Lock:
        if self._lock is None:
            with _MAKING:
                if self._lock is None:
                    self._lock = threading.Lock()
        return self._lock

    def _entry(self) -> Entry:
        return self._known if isinstance(self._known, Entry) else self._known.entry
