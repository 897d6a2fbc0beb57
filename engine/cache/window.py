"""A window of objects that are to be read next: looked up and fetched before their reader comes to them.

It goes by readahead's turns: behind readers, before loads, within the pool's threads, permits and memory.
What the store admits is found there by the reader; what it does not is kept here, within the window's bytes,
until the reader comes to it. It never fails: what could not be had is asked for again by the reader, who is
told.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from forebay.cache.blocks import Block, Gather, Prefetch, blocks_of, private_view, runs_of
from forebay.cache.datasets import Attached
from forebay.cache.demand import Demand
from forebay.cache.fetch import Fetcher, FirstTouch
from forebay.cache.lookup import Lookup
from forebay.cache.pool import Kind
from forebay.cache.read import Reader
from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.store import View

# Work on the next so many objects has all the threads there are, and more objects where that proves too
# late; for what lies behind them a share of the threads will do. All at once they would only be in the way
# of the reader, for whom the interpreter has one lock, and of each other's requests.
_CLOSE_MIN: Final = 128
_UNHURRIED_SHARE: Final = 8
# After so many jobs a worker lets others have its thread.
_JOBS_A_TURN: Final = 8
# Loads of other processes take a reader to be gone that was silent for twice as long.
_MARK_STEP_S: Final = 0.01
# How much the last size seen counts for what is to be expected of an unknown object.
_LAST_SIZE_SHARE: Final = 8


class _State(IntEnum):
    AHEAD = 0
    # Its reader has come to it: what runs is waited for, what does not is left to the reader.
    DUE = 1
    OVER = 2


class Upcoming:
    """A path that is to be read soon, and what there is of it. Its window's, but for reading."""

    __slots__ = (
        "attached",
        "begun_ahead",
        "changes",
        "entry",
        "held_bytes",
        "kept",
        "number",
        "path",
        "queued",
        "running",
        "state",
    )

    def __init__(self, path: str, attached: Attached | None = None, number: int = 0) -> None:
        """Begin with nothing. Without a dataset it stays so, and the reader finds out why.

        number: its place in the order, 0: unknown.
        """
        self.path: Final = path
        self.attached: Final = attached
        self.number: Final = number
        # How many objects the reader had before it when the last job began.
        self.begun_ahead = 0
        self.entry: Entry | None = None
        # The dataset's number of changes from before the entry was looked up.
        self.changes = 0
        self.state = _State.AHEAD
        # Jobs.
        self.queued = 0
        self.running = 0
        self.held_bytes = 0
        # By number: blocks that came and are in no tier.
        self.kept: Final[dict[int, View]] = {}

    @property
    def is_ready(self) -> bool:
        """Whether nothing is under way."""
        return not self.queued and not self.running


class _Job(NamedTuple):
    """Something to do for an object, under a permit for size_bytes; 0: it takes its own."""

    upcoming: Upcoming
    size_bytes: int
    run: Callable[[], None]


class Window:
    """What is fetched ahead of one reader of many objects, in one process. Threads: one at a time."""

    def __init__(
        self,
        locate: Callable[[str], tuple[Attached, str]],
        reader: Reader,
        fetcher: Fetcher,
        lookup: Lookup,
        demand: Demand,
        window_bytes: int,
    ) -> None:
        """Use these parts of the process, and at most window_bytes of its budget."""
        self._locate: Final = locate
        self._reader: Final = reader
        self._fetcher: Final = fetcher
        self._pool: Final = fetcher.pool
        self._lookup: Final = lookup
        self._demand: Final = demand
        self._window_bytes: Final = window_bytes
        # Reentrant: a window may be given up by the garbage collector, wherever that finds itself. Nothing
        # is called while it is held.
        self._lock: Final = threading.RLock()
        self._settled: Final = threading.Condition(self._lock)
        self._jobs: Final[deque[_Job]] = deque()
        self._workers = 0
        self._unhurried_workers: Final = max(self._pool.limits.fetch_threads // _UNHURRIED_SHARE, 1)
        # Numbers of objects: of the last that was begun, and of the last that the reader has come to.
        self._begun = 0
        self._reached = 0
        self._close = _CLOSE_MIN
        self._bytes = 0
        self._usual_bytes = fetcher.block_bytes

    @property
    def is_far(self) -> bool:
        """Whether what was begun last is nothing to hurry for."""
        return self._begun - self._reached >= self._close

    def begin(self, path: str) -> Upcoming | None:
        """Look the path up, and begin to fetch what is missing of it; None: there is no room now."""
        upcoming = self._begin(path, self._begun + 1)
        self._begun += upcoming is not None
        return upcoming

    def _begin(self, path: str, number: int) -> Upcoming | None:
        try:
            attached, rest = self._locate(path)
            if not rest:
                return Upcoming(path)
            upcoming = Upcoming(path, attached, number)
            entry, upcoming.changes = self._lookup.fresh(attached, rest)
        except (OSError, ValueError, TypeError, LookupError):
            return Upcoming(path)
        if entry is not None:
            upcoming.entry = entry
            return upcoming if self._fetch(upcoming, attached, entry) else None
        if not self._hold(upcoming, self._usual_bytes):
            return None
        self._enqueue(upcoming, 0, partial(self._look, upcoming, attached, rest))
        return upcoming

    def has_come(self, upcoming: Upcoming) -> bool:
        """Wait a moment for what is on its way of an object that is due; return whether all is there."""
        if upcoming.state is _State.AHEAD:
            self._come_to(upcoming)
        if upcoming.is_ready or self._has_settled(upcoming):
            return True
        self._demand.mark()
        return False

    def view(self, upcoming: Upcoming) -> View | None:
        """Return a view of an object that has come and was kept here; None: it is to be read as any other."""
        attached, entry = upcoming.attached, upcoming.entry
        if attached is None or entry is None or not upcoming.kept:
            return None
        try:
            is_current = self._is_current(upcoming, attached, entry)
            return self._view(attached, entry, upcoming) if is_current else None
        except (OSError, ValueError, LookupError):
            # Whatever it is, whoever reads the object from its beginning is told.
            return None

    def give_up(self, all_upcoming: Iterable[Upcoming]) -> None:
        """Fetch no more of these and give their budget back; what is under way ends by itself."""
        for upcoming in all_upcoming:
            upcoming.state = _State.OVER
            self._give_back(upcoming)

    def _look(self, upcoming: Upcoming, attached: Attached, path: str) -> None:
        """Find out what an object is, and fetch it. Raises: as UnderStorage.read_range."""
        touch, changes = self._reader.touch(attached, path, 0, self._fetcher.block_bytes, Kind.READAHEAD)
        upcoming.entry, upcoming.changes = touch.entry, changes
        self._lookup.keep(attached, touch.entry, changes)
        self._give_back(upcoming)
        self._fetch(upcoming, attached, touch.entry, touch)

    def _fetch(
        self, upcoming: Upcoming, attached: Attached, entry: Entry, touch: FirstTouch | None = None
    ) -> bool:
        """Begin to fetch what is missing; return whether there is room for it, or nothing to do."""
        size, block_bytes = entry.size, self._fetcher.block_bytes
        # One that is larger than the window is read in parts side by side when its turn comes.
        if entry.is_dir or size > self._window_bytes:
            return True
        self._usual_bytes += (min(size, block_bytes) - self._usual_bytes) // _LAST_SIZE_SHARE
        store = self._fetcher.store
        blocks = blocks_of(attached, entry, 0, size, block_bytes)
        missing = [block for block in blocks if not store.contains(block.key)]
        if not missing:
            return True
        if not self._hold(upcoming, sum(block.length for block in missing)):
            return False
        if touch is not None:
            missing = _keep_touched(touch, missing, upcoming.kept)
        for run in runs_of(attached, missing, Prefetch(upcoming.kept)):
            self._enqueue(upcoming, run.size_bytes, partial(self._fetcher.prefetch, run, Kind.READAHEAD))
        return True

    def _enqueue(self, upcoming: Upcoming, size_bytes: int, run: Callable[[], None]) -> None:
        """Let a job be done, unless its reader has come by then."""
        with self._lock:
            upcoming.queued += 1
            self._jobs.append(_Job(upcoming, size_bytes, run))
        self._hire()

    def _hire(self) -> None:
        """Put one more thread to work, if the first job is worth it."""
        # Without the lock: mostly it is not.
        if not self._is_worker_wanted():
            return
        with self._lock:
            is_wanted = self._is_worker_wanted()
            self._workers += is_wanted
        if is_wanted:
            self._pool.submit(Kind.READAHEAD, 0, self._work)

    def _is_worker_wanted(self) -> bool:
        try:
            return self._workers < self._workers_for(self._jobs[0])
        except IndexError:
            return False

    def _workers_for(self, job: _Job) -> int:
        """Return how many may be at work while this is the first job."""
        is_close = job.upcoming.number - self._reached < self._close
        return self._pool.limits.fetch_threads if is_close else self._unhurried_workers

    def _work(self) -> None:
        """Do some of the jobs, in order, as a task of the pool."""
        for _ in range(_JOBS_A_TURN):
            job = self._next_job()
            if job is None:
                return
            try:
                # Whatever it is, the reader asks again, and is told.
                with suppress(OSError, ValueError, LookupError):
                    self._do(job)
            finally:
                self._settle(job.upcoming)
        self._pool.submit(Kind.READAHEAD, 0, self._work)

    def _next_job(self) -> _Job | None:
        """Take the first job that is still to be done; None: no more for this worker, which has ended."""
        with self._lock:
            while self._jobs and self._workers <= self._workers_for(self._jobs[0]):
                job = self._jobs.popleft()
                upcoming = job.upcoming
                upcoming.queued -= 1
                if upcoming.state is _State.AHEAD:
                    upcoming.running += 1
                    upcoming.begun_ahead = upcoming.number - self._reached
                    return job
            self._workers -= 1
            return None

    def _do(self, job: _Job) -> None:
        if job.size_bytes:
            with self._pool.permit(Kind.READAHEAD, job.size_bytes):
                job.run()
        else:
            job.run()

    def _settle(self, upcoming: Upcoming) -> None:
        with self._lock:
            upcoming.running -= 1
            if not upcoming.running and upcoming.state is _State.DUE:
                self._settled.notify_all()

    def _come_to(self, upcoming: Upcoming) -> None:
        """Let no job begin that does not run yet: the reader goes before them."""
        self._reached = upcoming.number or self._reached
        if not upcoming.is_ready:
            with self._lock:
                upcoming.state = _State.DUE
                # It was begun in good time, and is late all the same.
                if upcoming.running and upcoming.begun_ahead > self._close // 2:
                    self._close *= 2
        self._hire()

    def _has_settled(self, upcoming: Upcoming) -> bool:
        """Wait a moment for the jobs that run; return whether there are none left."""
        with self._lock:
            return not upcoming.running or (self._settled.wait(_MARK_STEP_S) and not upcoming.running)

    def _hold(self, upcoming: Upcoming, size_bytes: int) -> bool:
        """Set part of the window and of the process's budget aside; return whether there was room."""
        if not self._pool.try_hold(size_bytes):
            return False
        with self._lock:
            has_room = upcoming.state is not _State.OVER and self._bytes + size_bytes <= self._window_bytes
            if has_room:
                self._bytes += size_bytes
                upcoming.held_bytes += size_bytes
        if not has_room:
            self._pool.unhold(size_bytes)
        return has_room

    def _give_back(self, upcoming: Upcoming) -> None:
        if upcoming.is_ready and not upcoming.held_bytes:
            return
        with self._lock:
            held_bytes, upcoming.held_bytes = upcoming.held_bytes, 0
            self._bytes -= held_bytes
        if held_bytes:
            self._pool.unhold(held_bytes)

    def _is_current(self, upcoming: Upcoming, attached: Attached, entry: Entry) -> bool:
        """Say whether a reader who asked now would be given the version that was fetched.

        Raises: as UnderStorage.stat; NotAttached.
        """
        if self._locate(upcoming.path)[0] is not attached:
            return False
        is_unchanged = self._lookup.changes(attached) == upcoming.changes
        if is_unchanged and self._lookup.is_fresh(attached, entry.path, entry.checked_ns):
            return True
        return self._lookup.stat(attached, entry.path).version == entry.version

    def _view(self, attached: Attached, entry: Entry, upcoming: Upcoming) -> View:
        """Put the object together from what was kept here and what the store has.

        Raises: as UnderStorage.read_range, for what neither has.
        """
        kept = upcoming.kept
        if entry.size <= self._fetcher.block_bytes:
            return kept[0]
        buffer = memoryview(bytearray(entry.size))
        sink = Gather(buffer, 0)
        missing = []
        for block in blocks_of(attached, entry, 0, entry.size, self._fetcher.block_bytes):
            if block.number in kept:
                sink.take(block, memoryview(kept[block.number]), admitted=False)
            elif not sink.hit(self._fetcher.store, block, changed=False):
                missing.append(block)
        self._fetcher.fetch(attached, missing, sink)
        return private_view(buffer)


def _keep_touched(touch: FirstTouch, missing: Iterable[Block], kept: dict[int, View]) -> list[Block]:
    """Keep what has come with the first look and found no room in the store; return what has not come."""
    rest = []
    for block in missing:
        if touch.has(block.offset, block.end):
            kept[block.number] = private_view(touch.bytes_of(block.offset, block.end))
        else:
            rest.append(block)
    return rest
