"""What a member has served lately, by block, in bounded memory: what is hot is handed over when it leaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from forebay.remote import BlockRef, RemoteObject

if TYPE_CHECKING:
    from forebay.peer.answer import Hit, Serves

BLOCKS_MAX: Final = 16_384


class ServedBlocks:
    """Counts by block. What was served long ago counts half, and half again. Threads: any."""

    def __init__(self, blocks_max: int = BLOCKS_MAX) -> None:
        """Remember so many blocks at most."""
        self._blocks_max: Final = blocks_max
        self._counts: dict[BlockRef, int] = {}
        self._lock: Final = threading.Lock()

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._counts)

    def note(self, dataset: str, path: str, version: str, number: int) -> None:
        """Count one more answer with a block."""
        ref = BlockRef(dataset, path, version, number)
        # Two threads may lose one of two counts, and nothing worse: the first lock is that of a full table.
        counts = self._counts
        counts[ref] = counts.get(ref, 0) + 1
        if len(counts) > self._blocks_max:
            self._halve()

    def hottest(self) -> list[BlockRef]:
        """Return what is remembered, what was served most often first."""
        with self._lock:
            counts = self._counts.copy()
        return sorted(counts, key=counts.__getitem__, reverse=True)

    def _halve(self) -> None:
        """Keep the more frequent half, with half the counts; of equal ones those that came last."""
        with self._lock:
            if len(self._counts) <= self._blocks_max:
                return
            counts = self._counts.copy()
            # The sort is stable, and those that came last stand behind others of the same count.
            kept = sorted(counts, key=counts.__getitem__)[-(self._blocks_max // 2) :]
            self._counts = {ref: (counts[ref] + 1) // 2 for ref in kept}


class NotedServing:
    """Answers as what is below it, and notes which blocks that were; see ``forebay.peer.answer.Serves``."""

    def __init__(self, serving: Serves, served: ServedBlocks, block_bytes: int) -> None:
        """Note in served."""
        self._serving: Final = serving
        self._block_bytes: Final = block_bytes
        self._served: Final = served

    def hits(self, blocks: Sequence[tuple[str, str, str, int]]) -> Iterator[Hit | None]:
        """Yield a view of each block that is cached here, None for all others."""
        for block, found in zip(blocks, self._serving.hits(blocks), strict=True):
            if found is not None:
                self._served.note(*block)
            yield found

    def bring(
        self, dataset: str, path: str, version: str, number: int, on_piece: Callable[[memoryview], None]
    ) -> None:
        """Give a whole block to on_piece."""
        self._serving.bring(dataset, path, version, number, on_piece)
        self._served.note(dataset, path, version, number)

    def touch(
        self, dataset: str, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, Hit | memoryview]:
        """Return what an object is, and bytes of it from the beginning of a block on."""
        found, data = self._serving.touch(dataset, path, offset, length)
        first, behind = offset // self._block_bytes, -(-(offset + len(data)) // self._block_bytes)
        for number in range(first, behind if len(data) else first):
            self._served.note(dataset, path, found.version, number)
        return found, data

    def stat(self, dataset: str, path: str) -> RemoteObject:
        """Describe an object or a directory."""
        return self._serving.stat(dataset, path)

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]]:
        """Yield what lies in a directory."""
        return self._serving.list(dataset, directory)
