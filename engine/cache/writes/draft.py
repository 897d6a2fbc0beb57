"""An object that is being written in any order, for frontends in which files are open for a long time.

What is written lies in memory while it is short, else staged on local disk; the object at the under storage
is as it was until ``commit``, which may be called again after more was written. What the object has is copied
there by the first change that leaves some of it. A change that could not be kept (staging_max, a full disk)
makes the draft one that is never committed, until it is emptied: no object is written of which a part is
missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from forebay.cache.datasets import Attached
from forebay.cache.writes.staging import Staged
from forebay.cache.writes.write import Writes
from forebay.config import MIB
from forebay.errors import Closed
from forebay.meta import Entry
from forebay.ufs.payload import BytesPayload, Payload

# What is kept in memory, of one draft and of all together: small objects are never staged.
_MEMORY_BYTES_EACH: Final = MIB
_MEMORY_BYTES_ALL: Final = 64 * MIB
_COPY_BYTES: Final = 4 * MIB
_NOTHING: Final = memoryview(b"")


class Base(Protocol):
    """The version of an object that a draft begins with."""

    @property
    def entry(self) -> Entry:
        """What the under storage says of it."""
        ...

    def known(self, offset: int, length: int) -> memoryview | None:
        """Return the range if it is cached."""
        ...

    def read(self, offset: int, length: int) -> memoryview:
        """Return the range. Raises: Stale; as UnderStorage.read_range."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class DraftMemory:
    """The memory that all drafts of a process may take. Threads: any."""

    def __init__(self, bytes_max: int = _MEMORY_BYTES_ALL) -> None:
        """Give so many bytes."""
        self._lock: Final = threading.Lock()
        self._left = bytes_max

    def take(self, count: int) -> bool:
        """Take so many bytes, if there are."""
        with self._lock:
            is_there = count <= self._left
            if is_there:
                self._left -= count
            return is_there

    def give(self, count: int) -> None:
        """Give bytes back."""
        with self._lock:
            self._left += count


class Draft:
    """One object that is being written. Threads: any."""

    def __init__(
        self,
        writes: Writes,
        memory: DraftMemory,
        attached: Attached,
        path: str,
        base: Base | None,
        *,
        exclusive: bool = False,
    ) -> None:
        """Begin with a version of the object, or with none: then there is something to commit at once.

        exclusive: the first commit is refused where there is an object, if the storage can tell.
        """
        self._writes: Final = writes
        self._memory: Final = memory
        self._attached: Final = attached
        self._path = path
        # None once all that is left of it was copied.
        self._base = base
        self._is_exclusive = exclusive
        self._entry = None if base is None else base.entry
        # What was written: in memory, or staged; neither while it is the base.
        self._buffer: bytearray | None = bytearray() if base is None else None
        self._staged: Staged | None = None
        self._taken_bytes = 0
        self._size = 0 if base is None else base.entry.size
        self._mtime_ns = time.time_ns() if base is None else base.entry.mtime_ns
        self._is_dirty = base is None
        self._is_dropped = False
        self._is_discarded = False
        self._failure: OSError | None = None
        # Held by whoever changes or commits it; it is read meanwhile. A staged file goes by the other.
        self._lock: Final = threading.RLock()
        self._reading: Final = threading.Lock()

    @property
    def path(self) -> str:
        """The object's path in its dataset."""
        return self._path

    @property
    def size(self) -> int:
        """How long it is now."""
        return self._size

    @property
    def mtime_ns(self) -> int:
        """When it was changed last, or what it was told."""
        return self._mtime_ns

    @property
    def entry(self) -> Entry | None:
        """What is at the under storage, as it began or was committed last; None if nothing is."""
        return self._entry

    @property
    def is_dirty(self) -> bool:
        """Whether there is something that a commit would write."""
        return self._is_dirty and not self._is_dropped

    @property
    def failure(self) -> OSError | None:
        """What the last change or commit has failed with, if it has."""
        return self._failure

    def known(self, offset: int, length: int) -> memoryview | None:
        """Return the range, less at the end, if that needs no disk and no under storage."""
        buffer, base = self._buffer, self._base
        if offset >= self._size:
            return _NOTHING
        if buffer is not None:
            return memoryview(bytes(buffer[offset : offset + length]))
        return None if base is None else base.known(offset, length)

    def read(self, offset: int, length: int) -> memoryview:
        """Return the range, less at the end. Raises: as ``Base.read``; OSError (staging); Closed."""
        while True:
            known = self.known(offset, length)
            if known is not None:
                return known
            with self._reading:
                if self._staged is not None:
                    length = max(min(length, self._size - offset), 0)
                    return memoryview(self._staged.file.read(offset, length))
            base = self._base
            if base is not None:
                return base.read(offset, length)
            # Else it goes from one to the other at this moment.
            self._refuse_discarded()

    def write_at_once(self, offset: int | None, data: bytes) -> bool:
        """Write as ``write``, if that is to memory and nobody else is at it; return whether it was done."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._failure is None and self._write_to_memory(self._place(offset), data)
        finally:
            self._lock.release()

    def write(self, offset: int | None, data: bytes) -> None:
        """Write at an offset, None: at the end.

        Raises: as ``Base.read``; OSError (staging: EDQUOT, ENOSPC; an earlier change failed); Closed
        (discarded).
        """
        with self._changing():
            offset = self._place(offset)
            self._load(self._size)
            if not self._write_to_memory(offset, data):
                self._stage().file.write(offset, memoryview(data))
                self._changed(max(self._size, offset + len(data)))

    def truncate(self, size: int) -> None:
        """Make it so long, with zeros where there was nothing. Raises: as ``write``."""
        with self._lock:
            self._refuse_discarded()
            if size == 0:
                self._empty()
        if size == self._size and self._failure is None:
            return
        with self._changing():
            self._load(min(size, self._size))
            if self._buffer is not None and size < len(self._buffer):
                self._memory.give(self._taken_bytes - size)
                self._taken_bytes = size
                del self._buffer[size:]
            elif not self._pad(size):
                self._stage().file.resize(size)
            self._changed(size)

    def set_mtime(self, mtime_ns: int) -> None:
        """Show another time, which the under storage does not keep."""
        self._mtime_ns = mtime_ns

    def fetch(self) -> None:
        """Have all of it here, to be read whatever becomes of the object. Raises: as ``write``."""
        with self._lock:
            self._load(self._size)

    def commit(self) -> Entry | None:
        """Write the object, if there is something to be written; return what it is then.

        Raises: as Writes.put; FileExistsError (exclusive: another made it meanwhile); OSError (an earlier
        change failed). It may be tried again.
        """
        with self._lock:
            if not self.is_dirty:
                return self._entry
            if self._failure is not None:
                raise self._failure
            attached, staged = self._writes.same_dataset(self._attached), self._staged
            payload = self._payload()
            exclusive = self._is_exclusive and self._writes.is_guarded(attached, self._path, payload.size)
            ticket = None if staged is None else staged.ticket
            entry = self._writes.put(attached, self._path, payload, exclusive=exclusive, ticket=ticket)
            self._entry, self._is_dirty, self._is_exclusive = entry, False, False
            return entry

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep it from being changed or committed by other threads."""
        with self._lock:
            yield

    def move(self, path: str, entry: Entry | None) -> None:
        """Take another path, where the under storage has that now."""
        with self._lock:
            self._path, self._entry = path, entry

    def drop(self) -> None:
        """Never commit it: the object was deleted. It can be read and written on."""
        with self._lock:
            self._is_dropped = True

    def discard(self, *, waits: bool = True) -> None:
        """Give up what was not committed, and all that is held; the last call.

        waits: for a commit under way; otherwise what that needs is left to it, and to whoever opens the
        cache next.
        """
        if not self._lock.acquire(blocking=waits):
            return
        try:
            self._is_dropped = self._is_discarded = True
            self._let_go()
            self._leave_base()
        finally:
            self._lock.release()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold it, and note what fails. Raises: OSError (an earlier change failed); Closed (discarded)."""
        with self._lock:
            self._refuse_discarded()
            if self._failure is not None:
                raise self._failure
            try:
                yield
            except OSError as error:
                if self._base is None:
                    self._failure = error
                raise

    def _refuse_discarded(self) -> None:
        if self._is_discarded:
            raise Closed(f"{self._path}: what was written of it was given up")

    def _place(self, offset: int | None) -> int:
        return self._size if offset is None else offset

    def _changed(self, size: int) -> None:
        self._size = size
        self._mtime_ns = time.time_ns()
        self._is_dirty = True

    def _write_to_memory(self, offset: int, data: bytes) -> bool:
        end = offset + len(data)
        if self._buffer is None or not self._pad(max(offset, len(self._buffer)), end):
            return False
        self._buffer[offset:end] = data
        self._changed(len(self._buffer))
        return True

    def _pad(self, size: int, size_after: int = 0) -> bool:
        """Have zeros up to size, if it is in memory and may be as long as that, and as size_after."""
        wanted = max(size, size_after)
        if self._buffer is None or wanted > _MEMORY_BYTES_EACH:
            return False
        more = wanted - self._taken_bytes
        if more > 0:
            if not self._memory.take(more):
                return False
            self._taken_bytes = wanted
        self._buffer.extend(bytes(size - len(self._buffer)))
        return True

    def _load(self, length: int) -> None:
        """Copy the first bytes of the base, unless that was done."""
        base = self._base
        if base is None:
            return
        if length <= _MEMORY_BYTES_EACH and self._memory.take(length):
            self._taken_bytes = length
            try:
                self._buffer = bytearray(base.read(0, length)) if length else bytearray()
            except BaseException:
                self._give_memory()
                raise
        else:
            self._staged = self._copied(base, length)
        self._leave_base()

    def _copied(self, base: Base, length: int) -> Staged:
        staged = self._writes.stage(self._attached, self._path)
        try:
            for offset in range(0, length, _COPY_BYTES):
                staged.file.write(offset, base.read(offset, min(_COPY_BYTES, length - offset)))
        except BaseException:
            self._writes.unstage(staged)
            raise
        return staged

    def _leave_base(self) -> None:
        base, self._base = self._base, None
        if base is not None:
            base.close()

    def _stage(self) -> Staged:
        """Have it staged, with what is in memory."""
        if self._staged is None:
            staged = self._writes.stage(self._attached, self._path)
            try:
                if self._buffer:
                    staged.file.write(0, memoryview(bytes(self._buffer)))
            except BaseException:
                self._writes.unstage(staged)
                raise
            # Who reads meanwhile finds one or the other.
            self._staged, self._buffer = staged, None
            self._give_memory()
        return self._staged

    def _empty(self) -> None:
        """Begin anew with nothing."""
        if self._size or self._failure is not None:
            self._changed(0)
            self._let_go()
            self._buffer = bytearray()
            self._leave_base()
            self._failure = None

    def _payload(self) -> Payload:
        if self._buffer is not None:
            return BytesPayload(bytes(self._buffer))
        assert self._staged is not None
        return self._staged.file.finish(self._size)

    def _let_go(self) -> None:
        self._buffer = None
        self._give_memory()
        with self._reading:
            staged, self._staged = self._staged, None
        if staged is not None:
            self._writes.unstage(staged)

    def _give_memory(self) -> None:
        self._memory.give(self._taken_bytes)
        self._taken_bytes = 0
