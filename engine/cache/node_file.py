"""An object that is open by its number: ranges of one version, by whoever asks, in any order.

Unlike CachedFile it has no position, may be read by several threads at a time, and answers at once, without a
wait, where everything is cached. It keeps to its version as FileSource does, by raising Stale.

Many files are opened and never read here, for the kernel has their pages: what only reads need is made by the
first of them, and what only misses need by the first miss.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
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
# Held to give a file its _Misses.
_MAKING: Final = Lock()


class _Misses:
    """What is kept of a file once something of it was not cached."""

    __slots__ = ("arriving", "kept", "lock", "notes", "source", "state_lock")

    def __init__(self) -> None:
        # What reads ahead. It is for one thread at a time: notes of reads that come meanwhile wait for it, in
        # order.
        self.source: FileSource | None = None
        self.lock: Final = Lock()
        self.notes: Final[deque[tuple[int, int]]] = deque()
        # By number: blocks that are being fetched, and one that the store did not admit.
        self.state_lock: Final = Lock()
        self.arriving: Final[dict[int, Arriving]] = {}
        self.kept: tuple[int, memoryview] | None = None


class NodeFile:
    """One version of an object, to be read by ranges. Threads: any."""

    __slots__ = (
        "_block_bytes",
        "_fetcher",
        "_is_closed",
        "_is_copied",
        "_key_head",
        "_lookup",
        "_misses",
        "_note",
        "_reader",
        "_seen",
        "_store",
        "attached",
        "entry",
    )

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
        # The key of a block but for its number.
        self._key_head: bytes | None = None
        # A block of a disk tier is copied when it is read: then no more of it than is asked for.
        self._is_copied = False
        self._misses: _Misses | None = None
        self._is_closed = False
        self._seen = lookup.changes(attached)

    def known(self, offset: int, length: int) -> memoryview | None:
        """Return the range, less at the object's end, if all of it is cached. Raises: Stale; Closed."""
        return self._range(offset, length, self._cached)

    def glanced(self, offset: int, length: int) -> memoryview | None:
        """Return what ``known`` returns, if it is a part of one block in memory; never waits for a disk."""
        return self._range(offset, length, self._in_sight)

    def _range(
        self, offset: int, length: int, find: Callable[[int, int], memoryview | None]
    ) -> memoryview | None:
        # First: behind the end of this version another may go on.
        if self._lookup.changes(self.attached) != self._seen:
            self._check()
        end = min(offset + length, self.entry.size)
        if offset >= end:
            return _NOTHING
        data = find(offset, end)
        if data is not None:
            misses = self._misses
            if misses is not None and misses.source is not None:
                self._follow(misses, offset, end)
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
        # Before anything is looked at: whoever makes something after that finds it closed.
        self._is_closed = True
        misses = self._misses
        if misses is None:
            return
        self._keep(misses, 0, None)
        self._give_up_ahead(misses)

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

    def _in_sight(self, offset: int, end: int) -> memoryview | None:
        number = offset // self._block_bytes
        if self._is_copied or (end - 1) // self._block_bytes != number:
            return None
        view = self._store.glance(self._key(number))
        start = offset - number * self._block_bytes
        return None if view is None else view[start : start + end - offset]

    def _key(self, number: int) -> bytes:
        head = self._key_head
        if head is None:
            entry = self.entry
            head = block_key(self.attached.record.id, entry.path, entry.version, 0, self._block_bytes)
            head = self._key_head = head[:-_NUMBER_BYTES]
        return head + number.to_bytes(_NUMBER_BYTES, "big")

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

    def _missed(self) -> _Misses:
        """Return what is kept for misses, made by the first."""
        misses = self._misses
        if misses is None:
            with _MAKING:
                misses = self._misses = self._misses or _Misses()
        return misses

    def _follow(self, misses: _Misses, offset: int, end: int) -> None:
        """Tell what reads ahead, now or as soon as whoever uses it has done."""
        misses.notes.append((offset, end))
        if misses.lock.acquire(blocking=False):
            try:
                self._drain(misses)
            finally:
                misses.lock.release()
                if self._is_closed:
                    self._give_up_ahead(misses)

    def _give_up_ahead(self, misses: _Misses) -> None:
        """Give up what is fetched ahead of a closed file, now or as soon as whoever uses it has done."""
        if misses.lock.acquire(blocking=False):
            try:
                if misses.source is not None:
                    misses.source.close()
            finally:
                misses.lock.release()

    def _drain(self, misses: _Misses) -> FileSource:
        """Tell what reads ahead, made if need be, of the reads so far, and return it."""
        source = misses.source
        if source is None:
            source = misses.source = FileSource(
                self.attached, self.entry, self._reader, self._fetcher, self._lookup, _no_note
            )
        while misses.notes:
            source.reads(*misses.notes.popleft())
        return source

    def _fetched(self, offset: int, end: int) -> memoryview:
        """Return a range of which something is not cached."""
        first, last = offset // self._block_bytes, (end - 1) // self._block_bytes
        misses = self._missed()
        try:
            with misses.lock:
                misses.notes.append((offset, end))
                source = self._drain(misses)
                if first == last and source.is_ahead(first):
                    return self._from_ahead(misses, source, offset, end)
        finally:
            if self._is_closed:
                self._give_up_ahead(misses)
        if first == last:
            start = first * self._block_bytes
            return self._arriving_block(misses, first).wait(offset - start, end - start)
        buffer = memoryview(bytearray(end - offset))
        source.gather(offset, buffer)
        return buffer

    def _from_ahead(self, misses: _Misses, source: FileSource, offset: int, end: int) -> memoryview:
        """Return a range of one block that was fetched ahead, or is being so."""
        number = offset // self._block_bytes
        data = memoryview(source.block(number))
        start = number * self._block_bytes
        if not self._store.contains(self._key(number)):
            self._keep(misses, number, data)
        return data[offset - start : end - start]

    def _arriving_block(self, misses: _Misses, number: int) -> Arriving:
        with misses.state_lock:
            arriving = misses.arriving.get(number)
            if arriving is not None:
                return arriving
            block = self._fetcher.block(self.attached, self.entry, number)
            arriving = misses.arriving[number] = Arriving(self._fetcher, self.attached, block)
        arriving.begin(partial(self._end_arriving, misses))
        return arriving

    def _end_arriving(self, misses: _Misses, arriving: Arriving) -> None:
        data = arriving.data
        if data is not None and not arriving.is_admitted:
            self._keep(misses, arriving.block.number, data)
        with misses.state_lock:
            misses.arriving.pop(arriving.block.number, None)

    def _in_memory(self, number: int, start: int, end: int) -> memoryview | None:
        """Return a part of a block that is in no tier, if it is here."""
        misses = self._misses
        if misses is None:
            return None
        kept, arriving = misses.kept, misses.arriving.get(number)
        if kept is not None and kept[0] == number:
            return kept[1][start:end]
        return None if arriving is None else arriving.known(start, end)

    def _keep(self, misses: _Misses, number: int, data: memoryview | None) -> None:
        """Keep a block for the reads of it that follow, in place of the one before, if there is room."""
        has_room = data is not None and self._fetcher.pool.try_hold(len(data))
        with misses.state_lock:
            before = misses.kept
            # Where it was closed meanwhile nobody would give it back.
            is_kept = has_room and not self._is_closed
            misses.kept = (number, data) if data is not None and is_kept else None
        if data is not None and has_room and not is_kept:
            self._fetcher.pool.unhold(len(data))
        if before is not None:
            self._fetcher.pool.unhold(len(before[1]))


def _no_note(offset: int, length: int) -> None:
    """What is read is told of by whoever reads it here."""
