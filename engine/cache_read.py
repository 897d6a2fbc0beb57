"""Reads: which blocks a range of an object lies in, and how their bytes come into one piece.

A range within one block is served as it lies there. A longer one is gathered into a buffer of its size,
hits first, then all misses at once. If the object changes meanwhile the read begins anew, once, with the
new version: bytes of two versions are never mixed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Final, TypeVar

from forebay.cache_datasets import Attached
from forebay.cache_fetch import Block, Fetcher, FirstTouch, private_view
from forebay.cache_lookup import Lookup
from forebay.errors import NotFound, Stale
from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.store import View

_T = TypeVar("_T")
_Run = Callable[[Sequence[Callable[[], None]]], None]


class Reader:
    """Reads objects for one process. Threads: any."""

    def __init__(
        self, lookup: Lookup, fetcher: Fetcher, pool: ThreadPoolExecutor, max_read_bytes: int
    ) -> None:
        """Use these; only tasks that wait for no other task of the pool are given to it."""
        self._lookup: Final = lookup
        self._fetcher: Final = fetcher
        self._pool: Final = pool
        self._max_read_bytes: Final = max_read_bytes

    def read(self, attached: Attached, path: str, offset: int, length: int | None) -> View:
        """Return a view of length bytes from offset on, or of all from there; fewer at the object's end.

        Raises: ValueError (negative figures; a gathered read above max_read_bytes); as
        UnderStorage.read_range.
        """
        return self._read(attached, path, offset, length, self._in_pool)

    def read_many(self, wanted: Sequence[tuple[Attached, str]]) -> list[View]:
        """Return views of whole objects in the order asked; those that are not cached are fetched together.

        Raises: what the first one in that order raises that cannot be read; the others' views are released.
        """
        found = [self._hit(attached, path) for attached, path in wanted]
        pending = {
            position: self._pool.submit(self._read, *wanted[position], 0, None, _one_by_one)
            for position, view in enumerate(found)
            if view is None
        }
        wait(pending.values())
        try:
            return [
                pending[position].result() if view is None else view for position, view in enumerate(found)
            ]
        except BaseException:
            done = [future.result() for future in pending.values() if future.exception() is None]
            for view in (*found, *done):
                if view is not None:
                    view.release()
            raise

    def readinto(self, attached: Attached, path: str, buffer: memoryview, offset: int) -> int:
        """Fill the buffer from offset on; return how many bytes, fewer only at the object's end.

        After an exception the buffer's content means nothing. Raises: as ``read``, whatever the size.
        """
        _check_range(offset, None)

        def fill(touch: FirstTouch) -> int:
            length = min(len(buffer), max(touch.entry.size - offset, 0))
            self._gather(attached, touch, offset, buffer[:length], self._in_pool)
            return length

        return self._with_entry(attached, path, offset, fill)

    def _read(self, attached: Attached, path: str, offset: int, length: int | None, run: _Run) -> View:
        _check_range(offset, length)
        return self._with_entry(
            attached, path, offset, lambda touch: self._read_version(attached, touch, offset, length, run)
        )

    def _hit(self, attached: Attached, path: str) -> View | None:
        """Return a view of an object that is one block, fresh and cached, and asks nobody; else None."""
        entry = self._lookup.known(attached, path)
        if entry is None or not self._lookup.is_fresh(attached.record, entry.checked_ns):
            return None
        if not 0 < entry.size <= self._fetcher.block_bytes:
            return None
        return self._fetcher.hit(self._fetcher.block(attached, entry, 0))

    def _with_entry(self, attached: Attached, path: str, offset: int, use: Callable[[FirstTouch], _T]) -> _T:
        """Call use with what the object is, and again, once, if it has changed by then."""
        touch = self._touch(attached, path, offset)
        try:
            try:
                return use(touch)
            except Stale:
                return use(FirstTouch(self._ask(attached, path)))
        except NotFound:
            self._lookup.forget(attached, path)
            raise

    def _touch(self, attached: Attached, path: str, offset: int) -> FirstTouch:
        entry = self._lookup.known(attached, path)
        if entry is None:
            return self._fetcher.first_touch(attached, path, offset // self._fetcher.block_bytes)
        if self._lookup.is_fresh(attached.record, entry.checked_ns):
            return FirstTouch(entry)
        return FirstTouch(self._ask(attached, path))

    def _ask(self, attached: Attached, path: str) -> Entry:
        entry = self._lookup.ask(attached, path)
        if entry.is_dir:
            raise IsADirectoryError(errno.EISDIR, "is a directory", f"{attached.record.name}/{path}")
        return entry

    def _read_version(
        self, attached: Attached, touch: FirstTouch, offset: int, length: int | None, run: _Run
    ) -> View:
        size = touch.entry.size
        end = size if length is None else min(size, offset + length)
        if offset >= end:
            return private_view(memoryview(b""))
        block_bytes = self._fetcher.block_bytes
        if offset // block_bytes == (end - 1) // block_bytes:
            return self._read_within_block(attached, touch, offset, end)
        if end - offset > self._max_read_bytes:
            raise ValueError(
                f"{attached.record.name}/{touch.entry.path}: {end - offset} bytes in one read are more than "
                f"max_read_bytes ({self._max_read_bytes}); read parts of it, or use readinto"
            )
        buffer = memoryview(bytearray(end - offset))
        self._gather(attached, touch, offset, buffer, run)
        return private_view(buffer)

    def _read_within_block(self, attached: Attached, touch: FirstTouch, offset: int, end: int) -> View:
        block = self._fetcher.block(attached, touch.entry, offset // self._fetcher.block_bytes)
        view = touch.view if touch.view is not None else self._fetcher.view(attached, block)
        start = offset - block.offset
        if end - offset == block.length:
            return view
        # The slice keeps the view, and with it the lease, for as long as it lives itself.
        return private_view(view[start : start + end - offset])

    def _gather(
        self, attached: Attached, touch: FirstTouch, offset: int, buffer: memoryview, run: _Run
    ) -> None:
        """Fill the buffer from the object's bytes, which the caller has seen to be there."""
        block_bytes, position = self._fetcher.block_bytes, 0
        missing: list[Callable[[], None]] = []
        first = touch.view
        while position < len(buffer):
            block = self._fetcher.block(attached, touch.entry, (offset + position) // block_bytes)
            start = offset + position - block.offset
            target = buffer[position : position + block.length - start]
            if first is not None:
                target[:] = first[start : start + len(target)]
                first = None
            elif not self._fetcher.copy_hit(block, start, target):
                missing.append(self._copy_later(attached, block, start, target))
            position += len(target)
        run(missing)

    def _copy_later(
        self, attached: Attached, block: Block, start: int, target: memoryview
    ) -> Callable[[], None]:
        return lambda: self._fetcher.copy_miss(attached, block, start, target)

    def _in_pool(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Run the tasks side by side; raise the first one's exception when all have ended."""
        if len(tasks) <= 1:
            _one_by_one(tasks)
            return
        futures = [self._pool.submit(task) for task in tasks]
        wait(futures)
        for future in futures:
            future.result()


def _one_by_one(tasks: Sequence[Callable[[], None]]) -> None:
    """Run the tasks here: for a caller that is a task of the pool itself, and must not wait for others."""
    for task in tasks:
        task()


def _check_range(offset: int, length: int | None) -> None:
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"offset and length are not negative: offset={offset}, length={length}")
