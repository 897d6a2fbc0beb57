"""An object that is open by its number: ranges of one version, by whoever asks, in any order.

Unlike CachedFile it has no position, may be read by several threads at a time, and answers at once, without a
wait, where everything is cached. It keeps to its version as FileSource does, by raising Stale.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock
from typing import Final

from forebay.cache.arriving import Arriving
from forebay.cache.datasets import Attached
from forebay.cache.fetch import Fetcher
from forebay.cache.file import FileSource, check_version
from forebay.cache.lookup import Lookup
from forebay.cache.paths import block_key, whole_key
from forebay.cache.read import Reader
from forebay.errors import NotFound, Stale
from forebay.meta import Entry

_NUMBER_BYTES: Final = 8
_NOTHING: Final = memoryview(b"")


class NodeFile:
    """One version of an object, to be read by ranges. Threads: any."""

    def __init__(
        self,
        attached: Attached,
        entry: Entry,
        fetcher: Fetcher,
        reader: Reader,
        lookup: Lookup,
        note: Callable[[int, int], None] | None,
    ) -> None:
        """Use the parts of this process; note, if any, is told offset and length of what is read."""
        self.entry: Final = entry
        self.attached: Final = attached
        self._fetcher: Final = fetcher
        self._store: Final = fetcher.store
        self._reader: Final = reader
        self._lookup: Final = lookup
        self._note: Final = note
        self._block_bytes: Final = fetcher.block_bytes
        self._key_head: Final = block_key(
            attached.record.id, entry.path, entry.version, 0, fetcher.block_bytes
        )[:-_NUMBER_BYTES]
        # A block of a disk tier is copied when it is read: then no more of it than is asked for.
        self._is_copied = False
        # What reads ahead, from the first miss on. It is for one thread at a time: notes of reads that come
        # meanwhile wait for it, in order.
        self._source: FileSource | None = None
        self._lock: Final = Lock()
        self._notes: Final[deque[tuple[int, int]]] = deque()
        # By number: blocks that are being fetched, and one that the store did not admit.
        self._state_lock: Final = Lock()
        self._arriving: Final[dict[int, Arriving]] = {}
        self._kept: tuple[int, memoryview] | None = None
        self._is_closed = False
        self._seen = lookup.changes(attached)

    def known(self, offset: int, length: int) -> memoryview | None:
        """Return the range, less at the object's end, if all of it is cached. Raises: Stale; Closed."""
        # First: behind the end of this version another may go on.
        if self._lookup.changes(self.attached) != self._seen:
            self._check()
        end = min(offset + length, self.entry.size)
        if offset >= end:
            return _NOTHING
        data = self._cached(offset, end)
        if data is not None:
            if self._source is not None:
                self._follow(offset, end)
            if self._note is not None:
                self._note(offset, end - offset)
        return data

    def read(self, offset: int, length: int) -> memoryview:
        """Return the range, less at the object's end. Raises: Stale; as UnderStorage.read_range."""
        data = self.known(offset, length)
        if data is not None:
            return data
        end = min(offset + length, self.entry.size)
        try:
            data = self._fetched(offset, end)
        except (Stale, NotFound):
            self._lookup.learn(self.attached, self.entry.path)
            raise
        if self._note is not None:
            self._note(offset, end - offset)
        return data

    def close(self) -> None:
        """Give up what was fetched ahead, and what is kept. Never waits."""
        self._is_closed = True
        self._keep(0, None)
        if self._lock.acquire(blocking=False):
            try:
                if self._source is not None:
                    self._source.close()
            finally:
                self._lock.release()

    def _check(self) -> None:
        """Look whether the version still is the one that is known. Raises: Stale."""
        seen = self._lookup.changes(self.attached)
        if self.attached.manifest is None:
            check_version(self._lookup, self.attached, self.entry)
        self._seen = seen

    def _cached(self, offset: int, end: int) -> memoryview | None:
        block_bytes = self._block_bytes
        number = offset // block_bytes
        if (end - 1) // block_bytes != number:
            return self._cached_across(offset, end)
        key = self._key(number)
        start = offset - number * block_bytes
        if self._is_copied:
            copied = self._copied(key, start, end - offset)
            return self._in_memory(number, start, start + end - offset) if copied is None else copied
        view = self._store.peek(key)
        if view is None:
            return self._in_memory(number, start, start + end - offset)
        self._is_copied = not view.zero_copy
        return view[start : start + end - offset]

    def _key(self, number: int) -> bytes:
        return self._key_head + number.to_bytes(_NUMBER_BYTES, "big")

    def _cached_across(self, offset: int, end: int) -> memoryview | None:
        """Return a range of several blocks: of a file that lies whole, or put together."""
        entry = self.entry
        whole = self._store.get_file(
            whole_key(self.attached.record.id, entry.path, entry.version, self._block_bytes)
        )
        if whole is not None:
            return whole[offset:end]
        buffer = memoryview(bytearray(end - offset))
        at = offset
        while at < end:
            number = at // self._block_bytes
            behind = min((number + 1) * self._block_bytes, end)
            target = buffer[at - offset : behind - offset]
            start = at - number * self._block_bytes
            if self._store.readinto(self._key(number), target, start, quiet=True) != len(target):
                return None
            at = behind
        return buffer

    def _copied(self, key: bytes, start: int, length: int) -> memoryview | None:
        buffer = memoryview(bytearray(length))
        copied = self._store.readinto(key, buffer, start, quiet=True)
        return buffer if copied == length else None

    def _follow(self, offset: int, end: int) -> None:
        """Tell what reads ahead, now or as soon as whoever uses it has done."""
        self._notes.append((offset, end))
        if self._lock.acquire(blocking=False):
            try:
                self._drain(self._make_source())
            finally:
                self._lock.release()

    def _drain(self, source: FileSource) -> None:
        while self._notes:
            source.reads(*self._notes.popleft())

    def _fetched(self, offset: int, end: int) -> memoryview:
        """Return a range of which something is not cached."""
        first, last = offset // self._block_bytes, (end - 1) // self._block_bytes
        with self._lock:
            source = self._source = self._make_source()
            self._notes.append((offset, end))
            self._drain(source)
            if first == last and source.is_ahead(first):
                data = memoryview(source.block(first))
                start = first * self._block_bytes
                if not self._store.contains(self._key(first)):
                    self._keep(first, data)
                return data[offset - start : end - start]
        if self._is_closed:
            # Whoever closed it has left what is ahead to this one.
            source.close()
        if first == last:
            start = first * self._block_bytes
            return self._arriving_block(first).wait(offset - start, end - start)
        buffer = memoryview(bytearray(end - offset))
        source.gather(offset, buffer)
        return buffer

    def _arriving_block(self, number: int) -> Arriving:
        with self._state_lock:
            arriving = self._arriving.get(number)
            if arriving is not None:
                return arriving
            block = self._fetcher.block(self.attached, self.entry, number)
            arriving = self._arriving[number] = Arriving(self._fetcher, self.attached, block)
        arriving.begin(self._end_arriving)
        return arriving

    def _end_arriving(self, arriving: Arriving) -> None:
        data = arriving.data
        if data is not None and not arriving.is_admitted:
            self._keep(arriving.block.number, data)
        with self._state_lock:
            self._arriving.pop(arriving.block.number, None)

    def _in_memory(self, number: int, start: int, end: int) -> memoryview | None:
        """Return a part of a block that is in no tier, if it is here."""
        kept, arriving = self._kept, self._arriving.get(number)
        if kept is not None and kept[0] == number:
            return kept[1][start:end]
        return None if arriving is None else arriving.known(start, end)

    def _keep(self, number: int, data: memoryview | None) -> None:
        """Keep a block for the reads of it that follow, in place of the one before, if there is room."""
        has_room = data is not None and not self._is_closed and self._fetcher.pool.try_hold(len(data))
        with self._state_lock:
            before, self._kept = self._kept, (number, data) if data is not None and has_room else None
        if before is not None:
            self._fetcher.pool.unhold(len(before[1]))

    def _make_source(self) -> FileSource:
        return self._source or FileSource(
            self.attached, self.entry, self._reader, self._fetcher, self._lookup, _no_note
        )


def _no_note(offset: int, length: int) -> None:
    """What is read is told of by whoever reads it here."""
