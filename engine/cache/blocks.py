"""Blocks of objects, and where their bytes go besides the store."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from forebay.cache.datasets import Attached
from forebay.cache.paths import block_key
from forebay.config import MIB
from forebay.meta import Entry
from forebay.ufs import PIECE_BYTES

if TYPE_CHECKING:
    from forebay.store import BlockStore, Claim, View

# Adjacent missing blocks are one request up to this size; a longer run is cut into parts. Where those are
# very many they are as large as a request may be: each costs processor time, whatever it brings.
JOIN_BYTES_MAX: Final = 16 * MIB
PART_BYTES: Final = 8 * MIB
_PARTS_MANY: Final = 64
# Every block that is fetched has a place in the host's table of flights, which is not to fill up.
_JOIN_BLOCKS_MAX: Final = 64


class Block(NamedTuple):
    """One block of one version of an object, its key, and whose it is."""

    entry: Entry
    number: int
    offset: int
    length: int
    key: bytes
    dataset_id: int

    @property
    def end(self) -> int:
        """The offset behind its last byte."""
        return self.offset + self.length


def block_of(attached: Attached, entry: Entry, number: int, block_bytes: int) -> Block:
    """Describe a block; the caller guarantees that it begins within the object, or is the first."""
    offset = number * block_bytes
    key = block_key(attached.record.id, entry.path, entry.version, number, block_bytes)
    return Block(entry, number, offset, min(block_bytes, entry.size - offset), key, attached.record.id)


def blocks_of(attached: Attached, entry: Entry, offset: int, end: int, block_bytes: int) -> Iterator[Block]:
    """Yield the blocks that the bytes from offset to before end lie in; these are within the object."""
    if offset < end:
        for number in range(offset // block_bytes, (end - 1) // block_bytes + 1):
            yield block_of(attached, entry, number, block_bytes)


class Sink(ABC):
    """Where a reader wants blocks: each is either taken from the store or handed over when it was fetched.

    Threads: any, for blocks that differ.
    """

    # Whether it keeps what is fetched itself, as it comes: `take_pieces` in place of the store and `take`.
    takes_pieces = False
    # Whether all of them stay in memory until the block is complete.
    keeps_pieces = False

    # How much the read asks for that the blocks are for; None: whatever asks, all of it is to be cached.
    asked_bytes: int | None = None

    @abstractmethod
    def from_store(self, store: BlockStore, block: Block) -> bool:
        """Take the block from the store; False if it is not there. Counts no miss."""

    @abstractmethod
    def take(self, block: Block, data: memoryview, admitted: bool) -> None:
        """Take the block's bytes, which nobody changes afterwards."""

    def room(self, offset: int, length: int) -> memoryview | None:
        """Return the place for these bytes of the object, if all of them are wanted: no `take` then."""
        return None

    def take_pieces(self, block: Block, pieces: Iterable[memoryview]) -> bool:
        """Take the block's bytes as they come; False: neither this block nor others are wanted any more.

        What asking for a piece raises is passed on.
        """
        raise AssertionError("it takes blocks")


class Gather(Sink):
    """Bytes from base on, into a buffer that the caller keeps."""

    def __init__(self, buffer: memoryview, base: int, *, is_lent: bool = False) -> None:
        """Fill the buffer, whose first byte is the object's byte number base.

        is_lent: it is the caller's own, and is left alone after ``leave``.
        """
        self.asked_bytes = len(buffer)
        self._buffer: Final = buffer
        self._base: Final = base
        self._lock: Final = threading.Lock()
        # The main thread may be interrupted, and what fetches for it then goes on without it.
        self._may_be_left: Final = is_lent and threading.current_thread() is threading.main_thread()
        self._is_left = False

    def leave(self) -> None:
        """Write into the buffer no more: it is the caller's again."""
        with self._lock:
            self._is_left = True

    def from_store(self, store: BlockStore, block: Block) -> bool:
        """Copy the block's part of the buffer."""
        start, target = self._part(block)
        if not store.contains(block.key):
            return False
        with self._lock:
            copied = None if self._is_left else store.readinto(block.key, target, start, block.dataset_id)
            return self._is_left or copied == len(target)

    def hit(self, store: BlockStore, block: Block, *, changed: bool) -> bool:
        """Copy as ``from_store``, counting a miss: as that of an object that has changed, or as it is."""
        start, target = self._part(block)
        return store.readinto(block.key, target, start, block.dataset_id, changed) == len(target)

    def take(self, block: Block, data: memoryview, admitted: bool) -> None:
        """Copy the block's part of the buffer."""
        start, target = self._part(block)
        with self._lock:
            if not self._is_left:
                target[:] = data[start : start + len(target)]

    def room(self, offset: int, length: int) -> memoryview | None:
        """Return the buffer's own bytes, where they are all of the blocks and nobody else's meanwhile."""
        if self._may_be_left:
            return None
        start = offset - self._base
        if start < 0 or start + length > len(self._buffer):
            return None
        return self._buffer[start : start + length]

    def _part(self, block: Block) -> tuple[int, memoryview]:
        first = max(block.offset, self._base)
        behind = min(block.end, self._base + len(self._buffer))
        return first - block.offset, self._buffer[first - self._base : behind - self._base]


class Keep(Sink):
    """Views of whole blocks, by number."""

    def __init__(self, asked_bytes: int) -> None:
        """Begin with none, for a read of so many bytes."""
        self.asked_bytes = asked_bytes
        self.views: Final[dict[int, View]] = {}

    def from_store(self, store: BlockStore, block: Block) -> bool:
        """Keep the store's view."""
        view = store.get(block.key, block.dataset_id) if store.contains(block.key) else None
        if view is not None:
            self.views[block.number] = view
        return view is not None

    def take(self, block: Block, data: memoryview, admitted: bool) -> None:
        """Keep the fetched bytes themselves."""
        self.views[block.number] = private_view(data)


class Prefetch(Sink):
    """Nothing but what the store did not admit, when declined is given: somebody will ask for it soon."""

    def __init__(self, declined: dict[int, View] | None = None, asked_bytes: int | None = None) -> None:
        """Keep views of what was not admitted in declined, by number."""
        self.asked_bytes = asked_bytes
        self._declined: Final = declined

    def from_store(self, store: BlockStore, block: Block) -> bool:
        """Look whether the store has it."""
        return store.contains(block.key)

    def take(self, block: Block, data: memoryview, admitted: bool) -> None:
        """Keep what would be lost."""
        if self._declined is not None and not admitted:
            self._declined[block.number] = private_view(data)


@dataclass(slots=True, eq=False)
class Run:
    """Missing blocks of one object, side by side, and the state of bringing them; error is what ended it.

    Where peers had some of them, the others no longer lie side by side.
    """

    attached: Attached
    blocks: deque[Block]
    sink: Sink
    error: Exception | None = None
    # Another's flight of the first block, to be awaited before the run goes on.
    awaited: Claim | None = None
    flights_awaited: int = 0
    # Whether the next block that another fetches is fetched here as well, and all that follow.
    passes_by: bool = False
    has_stalled: bool = False
    # Numbers of the blocks that peers were asked for.
    asked: set[int] = field(default_factory=set)

    @property
    def size_bytes(self) -> int:
        """The bytes still to come."""
        return self.blocks[-1].end - self.blocks[0].offset if self.blocks else 0

    @property
    def buffer_bytes(self) -> int:
        """How many of them stand in memory at a time, at most."""
        if self.sink.takes_pieces and not self.sink.keeps_pieces:
            return min(self.size_bytes, PIECE_BYTES)
        return self.size_bytes


def runs_of(attached: Attached, missing: Iterable[Block], sink: Sink) -> list[Run]:
    """Join missing blocks of one object, in order, to runs of one request each."""
    blocks = list(missing)
    if len(blocks) == 1:
        return [Run(attached, deque(blocks), sink)]
    adjacent: list[list[Block]] = []
    for block in blocks:
        if adjacent and adjacent[-1][-1].end == block.offset:
            adjacent[-1].append(block)
        else:
            adjacent.append([block])
    return [Run(attached, deque(part), sink) for whole in adjacent for part in _cut(whole)]


def part_bytes(size_bytes: int) -> int:
    """Return how large the parts are that so many bytes side by side are cut into."""
    return JOIN_BYTES_MAX if size_bytes >= _PARTS_MANY * PART_BYTES else PART_BYTES


def _cut(blocks: list[Block]) -> Iterator[list[Block]]:
    """Cut adjacent blocks into requests: one, or parts that are fetched side by side."""
    block_bytes = blocks[0].length
    is_one = blocks[-1].end - blocks[0].offset <= JOIN_BYTES_MAX
    count = (JOIN_BYTES_MAX if is_one else part_bytes(blocks[-1].end - blocks[0].offset)) // block_bytes
    count = max(min(count, _JOIN_BLOCKS_MAX), 1)
    for start in range(0, len(blocks), count):
        yield blocks[start : start + count]


def private_view(data: memoryview) -> View:
    """Return a view over bytes that are not the store's: every read gives the same kind of thing."""
    from forebay.store import View

    return View.wrap(data)
