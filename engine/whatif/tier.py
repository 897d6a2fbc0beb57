"""One tier as the store runs it, without a byte in it: which blocks are there after which reads.

Records are put into open segments, which are sealed in order; above the high mark the evictor retires
segments, and what is to be kept of them is written anew. It always keeps up: the store's does so in a thread
of its own, beside readers that have to wait for an under storage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from forebay.whatif.geometry import ENTRY_BYTES, GHOST_WAYS, LARGE_ALIGN, Geometry, extent_of
from forebay.whatif.reads import Reads

_FREQUENCY_MAX: Final = 3
_READS_TO_STAY: Final = 2
_SMALL_PERCENT: Final = 10
_TICKS_A_TURNOVER: Final = 32
_TICKS_KEPT: Final = _TICKS_A_TURNOVER // 2
_TICKS: Final = 255
# Spreads block numbers, which count upwards, over the sets of ghosts.
_SPREAD: Final = 2_654_435_761
_NO_ROOM: Final = -1


class Queue:
    """The segments of a queue: the open one, if there is one, and those that are sealed, the oldest first.

    Records fill the open one up to fill_bytes, and may begin or end (a sampled one, any other) up to
    room_bytes.
    """

    __slots__ = ("fill_bytes", "is_open", "records", "room_bytes", "sealed")

    def __init__(self) -> None:
        """Begin with none."""
        self.is_open = False
        self.records: list[int] = []
        self.fill_bytes = 0
        self.room_bytes = _NO_ROOM
        self.sealed: Final[deque[list[int]]] = deque()

    def __len__(self) -> int:
        """Return how many segments these are."""
        return len(self.sealed) + self.is_open


class Tier(ABC):
    """A tier and one retention. For one thread.

    missed, missed_bytes: what was read and was not there.
    """

    def __init__(self, geometry: Geometry, reads: Reads) -> None:
        """Begin empty."""
        self.missed = 0
        self.missed_bytes = 0
        self._geometry: Final = geometry
        self._reads: Final = reads
        extents = [extent_of(length) for length in reads.lengths]
        # By block: what a record takes, and one less than what it is aligned to.
        self._extents: Final = [extent for extent, _ in extents]
        self._masks: Final = [align - 1 for _, align in extents]
        # Of a sampled block no more than the beginning has to lie in a segment: as many of them are in one
        # then as the sample has of those that are in a real one, on the average.
        self._is_sampled: Final = reads.rate < 1
        self._needs: Final = [0] * len(extents) if self._is_sampled else self._extents
        self._end_bytes: Final = _end_bytes(geometry, reads.rate, self._extents)
        # By block: whether it is there, and what retention knows of its reads.
        self._present: Final = bytearray(len(extents))
        self._touched: Final = bytearray(len(extents))
        self._used = 0
        # How many segments were sealed.
        self._age = 0

    @abstractmethod
    def play(self) -> None:
        """Read all there is to read, once, putting what is not there."""

    @abstractmethod
    def _queues(self) -> Sequence[Queue]:
        """Return all queues, that first which is to give its oldest segment first."""

    @abstractmethod
    def _retire(self, queue: Queue, records: list[int]) -> None:
        """Drop the blocks of a segment of a queue, or write them anew by ``_append``."""

    def _append(self, queue: Queue, block: int, *, is_moved: bool = False) -> bool:
        """Add a record to the open segment, or to another one; return whether there was room for it."""
        mask = self._masks[block]
        start = (queue.fill_bytes + mask) & ~mask
        # Again where the evictor has filled the new segment meanwhile with what it keeps.
        while start + self._needs[block] > queue.room_bytes:
            if not self._fits_alone(block):
                return False
            self._seal(queue)
            if not self._begin_segment(queue, is_moved=is_moved):
                return False
            start = (queue.fill_bytes + mask) & ~mask
        queue.records.append(block)
        queue.fill_bytes = start + self._extents[block]
        queue.room_bytes -= ENTRY_BYTES
        return True

    def _fits_alone(self, block: int) -> bool:
        geometry = self._geometry
        return geometry.begin_bytes + self._extents[block] + LARGE_ALIGN + ENTRY_BYTES <= geometry.end_bytes

    def _begin_segment(self, queue: Queue, *, is_moved: bool) -> bool:
        geometry = self._geometry
        if self._used >= (geometry.moved_limit if is_moved else geometry.put_limit):
            if not is_moved:
                self._evict(is_room_wanted=True)
            return False
        self._used += 1
        # A sampled record may reach into the next segment.
        excess_bytes = max(queue.fill_bytes - self._end_bytes, 0) if self._is_sampled else 0
        queue.is_open, queue.records = True, []
        queue.fill_bytes = geometry.begin_bytes + excess_bytes
        queue.room_bytes = self._end_bytes - ENTRY_BYTES
        if not is_moved and self._used > geometry.high:
            self._evict()
        return True

    def _seal(self, queue: Queue) -> None:
        if queue.is_open:
            queue.sealed.append(queue.records)
            queue.is_open, queue.room_bytes = False, _NO_ROOM
            self._age += 1

    def _evict(self, *, is_room_wanted: bool = False) -> None:
        """Retire segments down to the low mark; where room is wanted, open ones as well."""
        while self._used > self._geometry.low:
            queues = self._queues()
            if is_room_wanted and not any(queue.sealed for queue in queues):
                self._seal(next(queue for queue in queues if queue.is_open))
            queue = next((queue for queue in self._queues() if queue.sealed), None)
            if queue is None:
                return
            self._retire(queue, queue.sealed.popleft())
            self._used -= 1


class EpochTier(Tier):
    """What comes first stays, so there is no need to play: it hits whenever it is read again."""

    def __init__(self, geometry: Geometry, reads: Reads) -> None:
        """Begin empty. Nothing is above the mark at which eviction begins."""
        limit = geometry.kept_limit
        super().__init__(replace(geometry, put_limit=limit, high=limit, low=limit), reads)
        self._queue: Final = Queue()

    def play(self) -> None:
        """Put all blocks as they come; those that are there miss once, the others whenever they are read."""
        reads = self._reads
        for block, (length, count) in enumerate(zip(reads.lengths, reads.counts, strict=True)):
            missed = 1 if self._append(self._queue, block) else count
            self.missed += missed
            self.missed_bytes += missed * length

    def _queues(self) -> Sequence[Queue]:
        return (self._queue,)

    def _retire(self, queue: Queue, records: list[int]) -> None:
        raise AssertionError("a tier that keeps retires nothing")


class LruTier(Tier):
    """The oldest segment goes; what was read within the last half turnover is written anew."""

    def __init__(self, geometry: Geometry, reads: Reads) -> None:
        """Begin empty."""
        super().__init__(geometry, reads)
        self._queue: Final = Queue()
        self._tick = self._tick_now()

    def play(self) -> None:
        """Read all there is to read, once, putting what is not there."""
        present, touched, lengths = self._present, self._touched, self._reads.lengths
        queue, append = self._queue, self._append
        missed = missed_bytes = 0
        for block in self._reads.blocks:
            if present[block]:
                touched[block] = self._tick
                continue
            missed += 1
            missed_bytes += lengths[block]
            if append(queue, block):
                present[block] = 1
                touched[block] = 0
        self.missed, self.missed_bytes = missed, missed_bytes

    def _queues(self) -> Sequence[Queue]:
        return (self._queue,)

    def _seal(self, queue: Queue) -> None:
        super()._seal(queue)
        self._tick = self._tick_now()

    def _tick_now(self) -> int:
        return self._age * _TICKS_A_TURNOVER // self._geometry.segments % _TICKS + 1

    def _retire(self, queue: Queue, records: list[int]) -> None:
        present, touched = self._present, self._touched
        for block in records:
            seen = touched[block]
            is_kept = seen and (self._tick + _TICKS - seen) % _TICKS < _TICKS_KEPT
            if not is_kept or not self._append(queue, block, is_moved=True):
                present[block] = 0


class S3FifoTier(Tier):
    """A small queue for what is new, a main queue for what was read again, and ghosts of what was dropped."""

    def __init__(self, geometry: Geometry, reads: Reads) -> None:
        """Begin empty."""
        super().__init__(geometry, reads)
        self._small: Final = Queue()
        self._main: Final = Queue()
        sets = max(int(geometry.ghost_sets * reads.rate), 1)
        # How many names were put into each set of ghosts; by block its set, and how many those were with its
        # own: a set keeps the last few.
        self._ghost_counts: Final = [0] * sets
        self._ghost_sets: Final = [(block * _SPREAD >> 8) % sets for block in range(len(reads.lengths))]
        self._ghosts: Final = [-GHOST_WAYS] * len(reads.lengths)

    def play(self) -> None:
        """Read all there is to read, once, putting what is not there."""
        present, touched, lengths = self._present, self._touched, self._reads.lengths
        ghosts, counts, sets = self._ghosts, self._ghost_counts, self._ghost_sets
        small, main, append = self._small, self._main, self._append
        missed = missed_bytes = 0
        for block in self._reads.blocks:
            if present[block]:
                if touched[block] < _FREQUENCY_MAX:
                    touched[block] += 1
                continue
            missed += 1
            missed_bytes += lengths[block]
            is_ghost = counts[sets[block]] - ghosts[block] < GHOST_WAYS
            if append(main if is_ghost else small, block):
                present[block] = 1
                touched[block] = 0
        self.missed, self.missed_bytes = missed, missed_bytes

    def _queues(self) -> Sequence[Queue]:
        small, main = self._small, self._main
        has_small = len(small) * 100 > (len(small) + len(main)) * _SMALL_PERCENT
        return (small, main) if has_small else (main, small)

    def _retire(self, queue: Queue, records: list[int]) -> None:
        is_main = queue is self._main
        reads_to_stay = 1 if is_main else _READS_TO_STAY
        present, touched = self._present, self._touched
        ghosts, counts, sets = self._ghosts, self._ghost_counts, self._ghost_sets
        for block in records:
            seen = touched[block]
            if seen >= reads_to_stay and self._append(self._main, block, is_moved=True):
                touched[block] = seen - 1 if is_main else 0
            else:
                present[block] = 0
                ghost_set = sets[block]
                ghosts[block] = counts[ghost_set] = counts[ghost_set] + 1


def _end_bytes(geometry: Geometry, rate: float, extents: Sequence[int]) -> int:
    """Return where the records of a segment and their entries end; of a sample, where they would."""
    if rate == 1:
        return geometry.end_bytes
    # Half of a record is lost at the end of a real one.
    lost_bytes = sum(extents) / max(len(extents), 1) / 2
    return geometry.begin_bytes + int(rate * (geometry.end_bytes - geometry.begin_bytes - lost_bytes))
