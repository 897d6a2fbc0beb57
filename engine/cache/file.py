"""Files that are open: one version of an object as a seekable binary file.

A handle keeps to the version that it was opened with. When the cache learns that there is another, reading
raises Stale (ESTALE) rather than mixing the two; blocks that were read before stay as they were.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from forebay.cache.ahead import Readahead
from forebay.cache.datasets import Attached
from forebay.cache.fetch import Fetcher, FirstTouch
from forebay.cache.lookup import Lookup
from forebay.cache.read import Reader
from forebay.cache.seek import sought_position
from forebay.config import KIB
from forebay.errors import NotFound, Stale, stale
from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.store import View

# What is peeked at for the end of a line: enough for most, and little to copy.
_PEEK_BYTES: Final = 4 * KIB


class FileSource:
    """One version of an object for one handle, in one process."""

    def __init__(
        self,
        attached: Attached,
        entry: Entry,
        reader: Reader,
        fetcher: Fetcher,
        lookup: Lookup,
        note: Callable[[int, int], None],
    ) -> None:
        """Use the parts of this process; note is told the offset and the length of what is read."""
        self.entry: Final = entry
        self.block_bytes: Final = fetcher.block_bytes
        self._attached: Final = attached
        self._reader: Final = reader
        self._fetcher: Final = fetcher
        self._lookup: Final = lookup
        self._note: Final = note
        self._ahead: Final[Readahead] = reader.readahead(attached, entry)
        self._seen = lookup.changes(attached)

    def check(self) -> None:
        """Look whether the version still is the one that is known, if anything has changed at all.

        The version that a manifest lists stays what it is. Raises: Stale.
        """
        if self._attached.manifest is not None:
            return
        seen = self._lookup.changes(self._attached)
        if seen == self._seen:
            return
        check_version(self._lookup, self._attached, self.entry)
        self._seen = seen

    def block(self, number: int) -> View:
        """Return a view of a block. Raises: as UnderStorage.read_range."""
        block = self._fetcher.block(self._attached, self.entry, number)
        view = self._reader.block_view(self._attached, block, self._ahead)
        self._note(block.offset, block.length)
        return view

    def is_ahead(self, number: int) -> bool:
        """Say whether a block was fetched ahead, or is being so: then `block` is to take it."""
        return self._ahead.has(number)

    def gather(self, offset: int, target: memoryview) -> None:
        """Fill the target from offset on, which is all within the object. Raises: as read_range."""
        try:
            self._reader.fill(self._attached, FirstTouch(self.entry), offset, target)
        except (Stale, NotFound):
            self._lookup.learn(self._attached, self.entry.path)
            raise
        self._note(offset, len(target))

    def reads(self, offset: int, end: int) -> None:
        """Note what is about to be read."""
        self._ahead.reads(offset, end)

    def close(self) -> None:
        """Give up what was fetched ahead."""
        self._ahead.cancel()


def check_version(lookup: Lookup, attached: Attached, entry: Entry) -> None:
    """See that an object has no other version than that of the entry, as far as is known. Raises: Stale."""
    known = lookup.known(attached, entry.path)
    if known is None or known.version != entry.version:
        found = "none" if known is None else known.version
        raise stale(f"{attached.label}/{entry.path}", entry.version, found)


class CachedFile(io.BufferedIOBase):
    """An object of an attached dataset, open for reading; made by ``Cache.open``.

    A binary file as the io module has them: it may be wrapped in a TextIOWrapper and given to tarfile,
    zipfile or numpy.load. It cannot be pickled: open it anew from the Cache, which can. Threads: one at a
    time. Every read may raise Stale (the object has another version), Closed (the cache is closed) and what
    ``Cache.read`` raises.
    """

    def __init__(self, name: str, entry: Entry, make_source: Callable[[Entry], FileSource]) -> None:
        """Open one version; make_source gives the calling process's own source of it."""
        super().__init__()
        self.name: Final = name
        self._entry: Final = entry
        self._make_source: Final = make_source
        self._source = make_source(entry)
        self._pid = os.getpid()
        self._position = 0
        # The block that was read last, held so that small reads cost no look-up.
        self._view: View | None = None
        self._view_offset = 0

    @property
    def mode(self) -> str:
        """How it is open: "rb"."""
        return "rb"

    @property
    def size(self) -> int:
        """The object's size."""
        return self._entry.size

    @property
    def version(self) -> str:
        """The object's version that this handle reads."""
        return self._entry.version

    def readable(self) -> bool:
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

        Raises: ValueError (before the beginning; another whence).
        """
        self._check_open()
        self._position = sought_position(offset, whence, self._position, self.size)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """Return size bytes, or all up to the end; fewer only at the end."""
        self._check_open()
        left = max(self.size - self._position, 0)
        length = left if size is None or size < 0 else min(size, left)
        part = self._held(length)
        if part is not None:
            self._position += length
            return bytes(part)
        buffer = bytearray(length)
        self._fill(memoryview(buffer))
        return bytes(buffer)

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to size bytes, as many as lie in one block; none only at the end."""
        self._check_open()
        return self.read(self._length_in_block(size))

    def peek(self, size: int = 0, /) -> bytes:
        """Return some of the next bytes, of one block, without moving on; none only at the end."""
        self._check_open()
        length = self._length_in_block(max(size, _PEEK_BYTES))
        part = self._held(length)
        return bytes(self._load_block(length) if part is None and length else part or b"")

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer and return how many bytes; fewer only at the end."""
        self._check_open()
        target = memoryview(buffer).cast("B")
        length = min(len(target), max(self.size - self._position, 0))
        self._fill(target[:length])
        return length

    def readinto1(self, buffer: Any, /) -> int:
        """Fill as much of the buffer as lies in one block, and return how many bytes."""
        self._check_open()
        target = memoryview(buffer).cast("B")
        length = self._length_in_block(len(target))
        self._fill(target[:length])
        return length

    def close(self) -> None:
        """Close: what was fetched ahead is given up. May be called twice."""
        if not self.closed:
            self._drop_view()
            if self._pid == os.getpid():
                self._source.close()
        super().close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse to be pickled. Raises: TypeError."""
        raise TypeError(f"{self!r} cannot be pickled; pickle the Cache and open {self.name!r} there")

    def __repr__(self) -> str:
        """Name the object."""
        return f"<forebay.CachedFile {self.name!r}{' (closed)' if self.closed else ''}>"

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file.")

    def _own_source(self) -> FileSource:
        """Return this process's source: a forked child shares neither threads nor connections."""
        if self._pid != os.getpid():
            self._source, self._pid = self._make_source(self._entry), os.getpid()
        return self._source

    def _length_in_block(self, size: int) -> int:
        block_bytes = self._source.block_bytes
        left = max(self.size - self._position, 0)
        in_block = block_bytes - self._position % block_bytes
        return min(left, in_block) if size < 0 else min(size, left, in_block)

    def _fill(self, target: memoryview) -> None:
        """Fill the target, all of which is there, and move on."""
        length = len(target)
        part = self._held(length)
        if part is not None:
            target[:] = part
        elif self._is_in_block(length):
            target[:] = self._load_block(length)
        else:
            source = self._own_source()
            source.check()
            source.reads(self._position, self._position + length)
            source.gather(self._position, target)
        self._position += length

    def _held(self, length: int) -> memoryview | None:
        """Return the next bytes if they lie in the block that is held."""
        start = self._position - self._view_offset
        if self._view is None or start < 0 or start + length > len(self._view):
            return None
        self._own_source().reads(self._position, self._position + length)
        return self._view[start : start + length]

    def _is_in_block(self, length: int) -> bool:
        block_bytes = self._source.block_bytes
        return length > 0 and self._position % block_bytes + length <= block_bytes

    def _load_block(self, length: int) -> memoryview:
        """Hold the block that the position is in, and return the next bytes of it."""
        source = self._own_source()
        source.check()
        number = self._position // source.block_bytes
        source.reads(self._position, self._position + length)
        view = source.block(number)
        self._drop_view()
        self._view, self._view_offset = view, number * source.block_bytes
        start = self._position - self._view_offset
        return view[start : start + length]

    def _drop_view(self) -> None:
        # Its slices are copied before anybody else sees them, so the last reference goes here.
        self._view = None
