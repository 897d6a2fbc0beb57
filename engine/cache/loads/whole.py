"""A segment for one large file that a load brings, filled block by block by several threads.

Its blocks can be read as they come; once all are in, the file lies in one piece. Where the store has no such
place, or somebody else brings the file whole, the load caches its blocks one by one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from forebay.cache.admission import Admission
from forebay.cache.blocks import Block
from forebay.cache.datasets import Attached
from forebay.cache.paths import whole_key
from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.store import BlockStore, Claim, FileReservation


class WholeTarget:
    """The place of one file, to be finished by whoever began it. Threads: any."""

    def __init__(self, reservation: FileReservation, claim: Claim, count: int) -> None:
        """Own an admitted reservation of count blocks and the claim that goes with it."""
        self._reservation: Final = reservation
        self._claim: Final = claim
        self._count: Final = count
        self._lock: Final = threading.Lock()
        self._written: Final[set[int]] = set()

    @classmethod
    def begin(
        cls, store: BlockStore, admission: Admission, attached: Attached, entry: Entry
    ) -> WholeTarget | None:
        """Reserve a place for the file; None where there is none for it."""
        key = whole_key(attached.record.id, entry.path, entry.version, store.block_bytes)
        if store.contains(key):
            return None
        claim = store.claim(key)
        if not claim.leader:
            return None
        reservation = admission.reserve_file(attached, entry.path, key, entry.size)
        if reservation is None or not reservation.admitted:
            if reservation is not None:
                reservation.finish(keep=False)
            claim.done()
            return None
        return cls(reservation, claim, -(-entry.size // store.block_bytes))

    def write(self, block: Block, data: memoryview) -> bool:
        """Write a block; return whether it is in."""
        # Blocks that differ may be written at once; whoever finishes has waited for all who write.
        if not self._reservation.write(block.number, block.key, data):
            return False
        with self._lock:
            self._written.add(block.number)
        self._claim.progress()
        return True

    def has(self, block: Block) -> bool:
        """Say whether a block is in."""
        return block.number in self._written

    def finish(self) -> bool:
        """Publish the whole if all blocks are in; else give it up with those that are. Returns which."""
        with self._lock:
            is_whole = len(self._written) == self._count
            try:
                return self._reservation.finish(keep=is_whole)
            finally:
                self._claim.done()
