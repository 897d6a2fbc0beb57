"""A block on its way to readers who want parts of it: each has his as soon as it has come.

A block takes as long as its bytes, and who reads the beginning of a file need not wait for all of them. The
block is fetched as any other, once a host, and offered to the store when it is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from threading import Condition
from typing import TYPE_CHECKING, Final

from forebay.cache.blocks import Block, Sink, runs_of
from forebay.cache.datasets import Attached
from forebay.cache.fetch import Fetcher
from forebay.cache.pool import Kind
from forebay.errors import Closed

if TYPE_CHECKING:
    from forebay.store import BlockStore


class Arriving(Sink):
    """One block, complete up to where it has come. Threads: any to wait, one of the pool to fetch."""

    takes_pieces = True
    keeps_pieces = True

    def __init__(self, fetcher: Fetcher, attached: Attached, block: Block) -> None:
        """Prepare to fetch a block of a version that is known."""
        self.asked_bytes = block.entry.size
        self.block: Final = block
        self.is_admitted = False
        self._fetcher: Final = fetcher
        self._attached: Final = attached
        self._changed: Final = Condition()
        self._data = memoryview(b"")
        self._come_bytes = 0
        self._is_over = False
        self._error: Exception | None = None

    def begin(self, on_end: Callable[[Arriving], None]) -> None:
        """Fetch it in a thread of the pool; on_end is called there, when all has come or it has failed."""
        (run,) = runs_of(self._attached, [self.block], self)

        def bring() -> None:
            self._fetcher.bring([run])
            if run.error is not None:
                raise run.error

        def end(future: Future[None]) -> None:
            closed = Closed("the cache was closed meanwhile") if future.cancelled() else None
            error = closed or future.exception()
            assert error is None or isinstance(error, Exception)
            with self._changed:
                self._error, self._is_over = error, True
                self._changed.notify_all()
            on_end(self)

        self._fetcher.pool.submit(Kind.DEMAND, 0, bring).add_done_callback(end)

    @property
    def data(self) -> memoryview | None:
        """All of the block, None if it has not come."""
        return self._data if self._come_bytes == self.block.length else None

    def known(self, start: int, end: int) -> memoryview | None:
        """Return a part of the block, if it has come."""
        return self._data[start:end] if end <= self._come_bytes else None

    def wait(self, start: int, end: int) -> memoryview:
        """Return a part of the block when it has come. Raises: as UnderStorage.read_range."""
        with self._changed:
            self._changed.wait_for(lambda: end <= self._come_bytes or self._is_over)
            if end > self._come_bytes:
                assert self._error is not None
                raise self._error
            return self._data[start:end]

    def wait_beyond(self, start: int) -> memoryview:
        """Return all that has come from start on when there is some. Raises: as ``wait``."""
        with self._changed:
            self._changed.wait_for(lambda: start < self._come_bytes or self._is_over)
            if start >= self._come_bytes:
                assert self._error is not None
                raise self._error
            return self._data[start : self._come_bytes]

    def from_store(self, store: BlockStore, block: Block) -> bool:
        """Take the store's view."""
        view = store.get(block.key, block.dataset_id) if store.contains(block.key) else None
        if view is None:
            return False
        self.is_admitted = True
        self._take_all(memoryview(view))
        return True

    def take(self, block: Block, data: memoryview, admitted: bool) -> None:
        """Take what a peer had, and offer it to the store."""
        self._offer(data)
        self._take_all(data)

    def take_pieces(self, block: Block, pieces: Iterable[memoryview]) -> bool:
        """Take the bytes as they come, and offer all of them to the store."""
        data = memoryview(bytearray(block.length))
        come_bytes = 0
        for piece in pieces:
            data[come_bytes : come_bytes + len(piece)] = piece
            come_bytes += len(piece)
            if come_bytes < block.length:
                self._take(data, come_bytes)
        # Before the last readers go on: whoever comes next finds it in the store.
        self._offer(data)
        self._take(data, come_bytes)
        return True

    def _take_all(self, data: memoryview) -> None:
        self._take(data, len(data))

    def _take(self, data: memoryview, come_bytes: int) -> None:
        with self._changed:
            self._data, self._come_bytes = data, come_bytes
            self._changed.notify_all()

    def _offer(self, data: memoryview) -> None:
        if not self._fetcher.store.read_only:
            self.is_admitted = self._fetcher.offer(self._attached, self.block, data, self.asked_bytes)
