"""What a store must hold after a fault: operations as data, and a model that says what each leaves.

A block's bytes are a function of its number, version and length, so that every process can tell right from
wrong without asking another. The model keeps, for each key, the versions that may be there and whether it
counts among what was committed.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import signal
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from forebay.store import BlockStore

LOSS_PERCENT_MAX: Final = 1
FILE_BLOCK_BYTES: Final = 64 << 10
_VERSION: Final = struct.Struct("<Q")
_SEED: Final = struct.Struct("<QQQ")
_TABLE_STARTS: Final = 1 << 20
_TABLE: Final = hashlib.shake_128(b"blocks").digest(_TABLE_STARTS + FILE_BLOCK_BYTES)
_COUNT: Final = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class Block:
    """One block in one version."""

    number: int
    length_bytes: int = 3000
    version: int = 0
    dataset: int = 0

    @property
    def key(self) -> bytes:
        """Its key, the same in every version."""
        return b"block-%d" % self.number

    @property
    def data(self) -> bytes:
        """Its bytes: its version, then a stretch of a table of random bytes."""
        at = zlib.crc32(_SEED.pack(self.number, self.version, self.length_bytes)) % _TABLE_STARTS
        return (_VERSION.pack(self.version) + _TABLE[at : at + self.length_bytes])[: self.length_bytes]

    @classmethod
    def is_some_version(cls, number: int, data: bytes) -> bool:
        """Tell whether bytes are those of a block in whichever version."""
        return data == cls(number, len(data), _VERSION.unpack_from(data)[0]).data


class World:
    """The versions that each key may have, and the keys that count as committed."""

    def __init__(self) -> None:
        self.possible: dict[bytes, set[Block]] = {}
        self.committed: set[bytes] = set()

    def put(self, block: Block, *, lasting: bool = True) -> None:
        """Note a put that was admitted; not lasting: it may be evicted at any time."""
        if lasting:
            self.possible[block.key] = {block}
            self.committed.add(block.key)
        else:
            self.may_put(block)
            self.committed.discard(block.key)

    def may_put(self, block: Block) -> None:
        """Note a put that may have taken place."""
        self.possible.setdefault(block.key, set()).add(block)

    def delete(self, block: Block) -> None:
        """Note a deletion that was answered: the key is gone for good."""
        self.possible[block.key] = set()
        self.committed.discard(block.key)

    def may_delete(self, block: Block) -> None:
        """Note a deletion that may have taken place."""
        self.committed.discard(block.key)

    def verify(self, store: BlockStore) -> dict[bytes, int]:
        """Read every key and compare; return the keys that are there with their lengths.

        Fails on bytes that no version has, on a deleted block that is back, and on more than 1 % of the
        committed blocks missing.
        """
        present: dict[bytes, int] = {}
        for key, blocks in self.possible.items():
            view = store.get(key)
            if view is None:
                continue
            with view:
                found = bytes(view)
            present[key] = len(found)
            fits = any(len(found) == block.length_bytes and found == block.data for block in blocks)
            assert fits, f"{key!r}: {len(found)} wrong bytes; possible were {blocks}"
        missing = self.committed - present.keys()
        assert len(missing) * 100 <= LOSS_PERCENT_MAX * len(self.committed), (
            f"{len(missing)} of {len(self.committed)} committed blocks are missing, as {sorted(missing)[:3]}"
        )
        return present


class Progress:
    """What a process has ended so far, in memory shared with its parent, which outlives it."""

    def __init__(self, capacity: int = 1 << 16) -> None:
        self._memory = mmap.mmap(-1, _COUNT.size + capacity)

    @property
    def count(self) -> int:
        """How many operations have ended."""
        return int(_COUNT.unpack_from(self._memory)[0])

    def advance(self, result: object) -> None:
        """Note that one more has ended, and whether it was refused."""
        self._memory[_COUNT.size + self.count] = result is False
        _COUNT.pack_into(self._memory, 0, self.count + 1)

    def was_refused(self, index: int) -> bool:
        """Tell whether an operation ended with False."""
        return self._memory[_COUNT.size + index] != 0


def _nothing(world: World) -> None:
    """Change nothing."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What a process does to a store, what is known once it returned, and once it was cut short."""

    perform: Callable[[BlockStore], object]
    done: Callable[[World], None] = _nothing
    cut_short: Callable[[World], None] = _nothing
    block: Block | None = None  # the one that it is about


def put(block: Block, *, lasting: bool = True) -> Operation:
    """Return a put; a lasting one must be admitted and stay."""

    def perform(store: BlockStore) -> bool:
        admitted = store.put(block.key, block.data, dataset=block.dataset)
        assert admitted or not lasting, f"{block} was not admitted"
        return admitted

    return Operation(
        perform, lambda world: world.put(block, lasting=lasting), lambda world: world.may_put(block), block
    )


def delete(block: Block) -> Operation:
    """Return a deletion of a block that is there."""

    def perform(store: BlockStore) -> None:
        assert store.delete(block.key), f"{block} was not there"

    return Operation(perform, lambda world: world.delete(block), lambda world: world.may_delete(block), block)


def get(block: Block) -> Operation:
    """Return a read."""

    def perform(store: BlockStore) -> None:
        with store.get(block.key) or memoryview(b""):
            pass

    return Operation(perform, block=block)


def maintain() -> Operation:
    """Return one round of maintenance."""
    return Operation(lambda store: store.maintain())


def retain(dataset: int, retention: str) -> Operation:
    """Return a change of a dataset's retention."""
    return Operation(lambda store: store.set_retention(dataset, retention))


def fetch_alone(block: Block) -> Operation:
    """Return a single flight that is led and ended."""

    def perform(store: BlockStore) -> None:
        claim = store.claim(block.key)
        assert claim.leader
        claim.progress()
        claim.done()

    return Operation(perform, block=block)


def die_holding(block: Block) -> Operation:
    """Return the death of a forked child that holds a view of a block."""

    def perform(store: BlockStore) -> None:
        # The first read verifies, and may copy.
        store.get(block.key)
        pid = os.fork()
        if pid == 0:
            view = store.get(block.key)
            os.kill(os.getpid(), signal.SIGKILL if view is not None else signal.SIGTERM)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    return Operation(perform, block=block)


def put_file(name: bytes, blocks: Sequence[Block]) -> Operation:
    """Return a whole file, written block by block; its blocks count once it is complete."""

    def perform(store: BlockStore) -> None:
        size_bytes = sum(block.length_bytes for block in blocks)
        dataset = blocks[0].dataset
        with store.reserve_file(
            name, size_bytes, dataset=dataset, block_bytes=FILE_BLOCK_BYTES
        ) as reservation:
            assert reservation.admitted
            for index, block in enumerate(blocks):
                assert reservation.write(index, block.key, block.data)
        assert reservation.complete

    def done(world: World) -> None:
        for block in blocks:
            world.put(block)

    def cut_short(world: World) -> None:
        for block in blocks:
            world.may_put(block)

    return Operation(perform, done, cut_short)


def free(blocks: Iterable[Block]) -> Operation:
    """Return the freeing of the dataset that the blocks make up."""
    freed = list(blocks)

    def done(world: World) -> None:
        for block in freed:
            world.delete(block)

    def cut_short(world: World) -> None:
        for block in freed:
            world.may_delete(block)

    return Operation(lambda store: store.free_dataset(freed[0].dataset), done, cut_short)


def perform_all(store: BlockStore, operations: Iterable[Operation], progress: Progress | None = None) -> None:
    """Do the operations in order, counting those that returned."""
    for operation in operations:
        result = operation.perform(store)
        if progress is not None:
            progress.advance(result)


def world_after(prepared: Sequence[Operation], acted: Sequence[Operation] = (), completed: int = 0) -> World:
    """Return what must hold after `prepared` and the first `completed` of `acted`, the next cut short."""
    world = World()
    for operation in (*prepared, *acted[:completed]):
        operation.done(world)
    for operation in acted[completed : completed + 1]:
        operation.cut_short(world)
    return world
