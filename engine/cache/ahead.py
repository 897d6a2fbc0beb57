"""Readahead: what a sequential reader will ask for next is fetched before it does.

The window begins at 1 MiB and 128 KiB, enough for a file's head and one more read of a usual size, and
doubles while the reader keeps to the order, up to a limit; a read elsewhere closes it. What is ahead of all
readers of a process has one budget, and where that is used up nothing is fetched ahead. It never fails: what
could not be fetched is asked for again by the reader, who is told.
"""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from functools import partial
from typing import TYPE_CHECKING, Final

from forebay.cache.blocks import Prefetch, blocks_of, runs_of
from forebay.cache.datasets import Attached
from forebay.cache.fetch import Fetcher
from forebay.cache.pool import Kind
from forebay.cache.whole import WholeFiles
from forebay.config import KIB, MIB
from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.store import View

FIRST_WINDOW_BYTES: Final = MIB + 128 * KIB


class Readahead:
    """Fetches ahead of one reader of one version of an object. Threads: one at a time."""

    def __init__(self, fetcher: Fetcher, whole: WholeFiles, attached: Attached, entry: Entry) -> None:
        """Begin at the object's start, with nothing asked for."""
        self._fetcher: Final = fetcher
        self._pool: Final = fetcher.pool
        self._whole: Final = whole
        self._attached: Final = attached
        self._entry: Final = entry
        self._window_bytes_max: Final = fetcher.pool.limits.readahead_bytes
        self._window_bytes = 0
        # Where a read has to begin to be the next in order, and the offset behind what was asked for.
        self._next_offset = 0
        self._asked_until = 0
        # By number of block: what fetches it, and the bytes set aside for it.
        self._futures: Final[dict[int, Future[None]]] = {}
        self._held: Final[dict[int, int]] = {}
        self._declined: dict[int, View] = {}

    def reads(self, offset: int, end: int) -> None:
        """Note that the reader asks for the bytes from offset to before end, and fetch what follows."""
        if offset != self._next_offset:
            self.cancel()
            self._next_offset = end
            return
        self._next_offset = end
        self._drop_before(offset)
        if self._whole.is_wanted_whole(self._attached, self._entry, offset, end):
            self._whole.fetch_behind(self._attached, self._entry)
        # Half a window is left: time to open the next.
        if self._window_bytes == 0 or end + self._window_bytes // 2 >= self._asked_until:
            doubled = 2 * self._window_bytes or FIRST_WINDOW_BYTES
            self._window_bytes = min(doubled, self._window_bytes_max)
            self._ask(end, min(end + self._window_bytes, self._entry.size))

    def has(self, number: int) -> bool:
        """Say whether a block is on its way, or came and is in no tier."""
        return number in self._futures or number in self._declined

    def take(self, number: int) -> View | None:
        """Return a block that was fetched ahead and is in no tier; waits for one that is on its way.

        None: ask for it as for any other.
        """
        future = self._futures.pop(number, None)
        if future is not None:
            if future.cancel():
                self._forget(future)
            else:
                wait_for([future])
        self._give_back(number)
        return self._declined.pop(number, None)

    def cancel(self) -> None:
        """Ask for no more, drop what waits, and give the budget back; what is under way ends by itself."""
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()
        # Another one: what is under way still writes into the old.
        self._declined = {}
        for number in list(self._held):
            self._give_back(number)
        self._window_bytes = self._asked_until = 0

    def _ask(self, start: int, end: int) -> None:
        """Fetch the missing blocks between, as far as the budget goes."""
        block_bytes = self._fetcher.block_bytes
        # A block that has begun is on its way already, or was read.
        start = -(-max(self._asked_until, start) // block_bytes) * block_bytes
        self._asked_until = max(self._asked_until, end)
        missing = []
        for block in blocks_of(self._attached, self._entry, start, end, block_bytes):
            if block.number not in self._held and not self._fetcher.store.contains(block.key):
                if not self._pool.try_hold(block.length):
                    self._asked_until = block.offset
                    break
                self._held[block.number] = block.length
                missing.append(block)
        for run in runs_of(self._attached, missing, Prefetch(self._declined, self._entry.size)):
            numbers = [block.number for block in run.blocks]
            task = partial(self._fetcher.prefetch, run, Kind.READAHEAD)
            future = self._pool.submit(Kind.READAHEAD, run.size_bytes, task)
            self._futures.update(dict.fromkeys(numbers, future))

    def _forget(self, future: Future[None]) -> None:
        """Let what stood far back in the queue be asked for anew: the reader itself fetches what is due."""
        for number in [number for number, each in self._futures.items() if each is future]:
            del self._futures[number]
            self._give_back(number)
            self._asked_until = min(self._asked_until, number * self._fetcher.block_bytes)

    def _drop_before(self, offset: int) -> None:
        """Forget blocks that the reader has passed without asking for them."""
        number = offset // self._fetcher.block_bytes
        for passed in [each for each in self._held if each < number]:
            self._futures.pop(passed, None)
            self._declined.pop(passed, None)
            self._give_back(passed)

    def _give_back(self, number: int) -> None:
        size_bytes = self._held.pop(number, 0)
        if size_bytes:
            self._pool.unhold(size_bytes)
