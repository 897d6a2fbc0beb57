"""A file on its way into a segment of its own: by its blocks, in any order and by several threads.

Its blocks can be read as they come; once all are in, the file lies in one piece. One process of the host
fills a file. Who began a filling ends it: it is whole then, or given up with all that is in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from forebay.cache.admission import Admission
from forebay.cache.blocks import Block, Sink
from forebay.cache.datasets import Attached
from forebay.cache.paths import whole_key
from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.store import BlockStore, Claim, FileReservation


class Filling(Sink):
    """The place of one file, as a sink for its blocks."""

    takes_pieces = True

    def __init__(
        self,
        reservation: FileReservation,
        claim: Claim,
        count: int,
        *,
        counts_misses: bool,
        on_fetched: Callable[[int], None],
    ) -> None:
        """Own an admitted reservation of count blocks and the claim that goes with it."""
        self._reservation: Final = reservation
        self._claim: Final = claim
        self._count: Final = count
        self._counts_misses: Final = counts_misses
        self._on_fetched: Final = on_fetched
        self._lock: Final = threading.Lock()
        self._written: Final[set[int]] = set()
        # Whether a block did not go in, so that all of it is to be given up.
        self.has_failed = False

    @classmethod
    def begin(
        cls,
        store: BlockStore,
        admission: Admission,
        attached: Attached,
        entry: Entry,
        *,
        asked_bytes: int | None = None,
        counts_misses: bool = False,
        on_fetched: Callable[[int], None] = lambda _: None,
    ) -> Filling | None:
        """Reserve a place for the file; None where there is none for it, or somebody else brings it whole.

        asked_bytes is as to ``Admission``. counts_misses: a reader waits for it. on_fetched is told the bytes
        of each block that was fetched.
        """
        key = whole_key(attached.record.id, entry.path, entry.version, store.block_bytes)
        claim = store.claim(key)
        if not claim.leader and claim.wait(0):
            # The one who was at it has ended, or is dead.
            claim = store.claim(key)
        if not claim.leader:
            return None
        reservation = admission.reserve_file(attached, entry.path, key, entry.size, asked_bytes=asked_bytes)
        if reservation is None or not reservation.admitted:
            if reservation is not None:
                reservation.finish(keep=False)
            claim.done()
            return None
        count = -(-entry.size // store.block_bytes)
        return cls(reservation, claim, count, counts_misses=counts_misses, on_fetched=on_fetched)

    def from_store(self, store: BlockStore, block: Block) -> bool:
        """Copy a block that is cached by itself, if it is not in."""
        if self.has(block):
            return store.contains(block.key)
        is_asked = self._counts_misses or store.contains(block.key)
        view = store.get(block.key, block.dataset_id) if is_asked else None
        if view is None:
            return False
        with view, memoryview(view) as data:
            self._note(block, self._reservation.write(block.number, block.key, data))
        return True

    def take(self, block: Block, data: memoryview, admitted: bool) -> None:
        """Write a block that came in one piece."""
        self.take_pieces(block, [data])

    def take_pieces(self, block: Block, pieces: Iterable[memoryview]) -> bool:
        """Write a block; the first that does not go in ends the filling."""
        if self.has_failed:
            return False
        is_in = self._reservation.write_pieces(block.number, block.key, pieces)
        if is_in:
            self._on_fetched(block.length)
        self._note(block, is_in)
        return is_in

    def has(self, block: Block) -> bool:
        """Say whether a block is in."""
        return block.number in self._written

    def finish(self) -> bool:
        """Publish the whole if all blocks are in; else give it up with those that are. Returns which."""
        with self._lock:
            is_whole = len(self._written) == self._count
        try:
            return self._reservation.finish(keep=is_whole)
        except ValueError:
            # A block of it was freed meanwhile.
            return False
        finally:
            self._claim.done()

    def _note(self, block: Block, is_in: bool) -> None:
        if not is_in:
            self.has_failed = True
            return
        with self._lock:
            self._written.add(block.number)
        self._claim.progress()
