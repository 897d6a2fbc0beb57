"""The requests of one process: so many at a time, so many bytes in memory, readers first.

A *permit* stands for one request and the buffer that it fills. There are `in_flight_max` of them, and their
bytes stay within `memory_bytes`; a request larger than that waits until it is alone. Readers that wait
(DEMAND) come before what is fetched ahead for them, and that before loads; a share of the permits and of the
threads is left to readers, so that one never waits for a load's request to end.

Parts of large objects have a number of their own (see streams), and what is smaller goes before them.

It is no place for tasks that wait for one another: a task given to `submit` waits for requests only.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, Final, TypeVar

from forebay.cache.blocks import PART_BYTES
from forebay.cache.streams import Streams
from forebay.cache.workers import Workers
from forebay.config import MIB, parse_bytes
from forebay.errors import Closed, ConfigError

_T = TypeVar("_T")

# Of permits and threads, this share is never used for anything but readers.
_DEMAND_SHARE: Final = 4
_STEP_S: Final = 0.25
# So long a pool that is closed waits for what runs.
_PATIENCE_S: Final = 1.0


class Kind(IntEnum):
    """For whom a request is made; the lower goes first."""

    DEMAND = 0
    READAHEAD = 1
    LOAD = 2


@dataclass(frozen=True)
class FetchLimits:
    """What fetching may use of one process, all options of Cache.

    fetch_threads: threads that make requests beside those of the callers. in_flight_max: requests at a
    time. fetch_memory: bytes of the buffers that they fill, and of what is read ahead and not yet asked for.
    readahead_max: bytes ahead of one sequential reader; 0 turns it off.
    Raises: ConfigError (no number of at least 1, no size).
    """

    fetch_threads: int = 64
    in_flight_max: int = 64
    fetch_memory: int | str = 256 * MIB
    readahead_max: int | str = 64 * MIB

    def __post_init__(self) -> None:
        """Check every figure, and turn sizes into bytes."""
        for name in ("fetch_threads", "in_flight_max"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}: {value!r} is no whole number of at least 1")
        for name in ("fetch_memory", "readahead_max"):
            object.__setattr__(self, name, parse_bytes(getattr(self, name), name))
        if self.fetch_memory == 0:
            raise ConfigError("fetch_memory: 0 leaves no room for any request")

    @property
    def memory_bytes(self) -> int:
        """fetch_memory in bytes."""
        return parse_bytes(self.fetch_memory)

    @property
    def readahead_bytes(self) -> int:
        """readahead_max in bytes."""
        return parse_bytes(self.readahead_max)


class _Task:
    __slots__ = ("buffer_bytes", "future", "kind", "run", "size_bytes")

    def __init__(
        self, kind: Kind, size_bytes: int, run: Callable[[], Any], buffer_bytes: int | None = None
    ) -> None:
        self.kind = kind
        self.size_bytes = size_bytes
        self.run = run
        self.buffer_bytes = size_bytes if buffer_bytes is None else buffer_bytes
        self.future: Future[Any] = Future()

    @property
    def is_part(self) -> bool:
        """Whether it is a part of a large object."""
        return self.size_bytes >= PART_BYTES

    def do(self) -> Callable[[], None]:
        """Run it, and return what puts the outcome into the future, unless the pool has given it up."""
        if not self.future.set_running_or_notify_cancel():
            return lambda: None
        try:
            settle = partial(self.future.set_result, self.run())
        except BaseException as error:  # noqa: BLE001  (whoever waits for the future raises it)
            settle = partial(self.future.set_exception, error)
        return partial(_unless_settled, settle)

    def cancel(self) -> None:
        """Cancel what nobody runs, and tell those who wait for it."""
        if self.future.cancel():
            self.future.set_running_or_notify_cancel()

    def give_up(self) -> None:
        """Tell those who wait for it that what runs is not waited for any more."""
        _unless_settled(partial(self.future.set_exception, _closed_meanwhile()))


class FetchPool:
    """The threads and permits of one process. Threads: any."""

    def __init__(self, limits: FetchLimits) -> None:
        """Take the limits; threads are started as they are needed."""
        self.limits: Final = limits
        self._workers: Final = Workers("forebay-fetch")
        # Reentrant: a file that the garbage collector closes gives memory back from wherever it finds itself.
        # Entered as itself: an interrupt within Condition's own __enter__ would leave it locked.
        self._lock: Final = threading.RLock()
        self._changed: Final = threading.Condition(self._lock)
        # By kind: what waits, parts of large objects apart; how many tasks run, and of those how many parts;
        # how many permits are held.
        self._queues: Final[list[tuple[deque[_Task], deque[_Task]]]] = [(deque(), deque()) for _ in Kind]
        self._running: Final = [0 for _ in Kind]
        self._parts_running: Final = [0 for _ in Kind]
        self._streams: Final = Streams(limits.fetch_threads)
        self._at_work: Final[set[_Task]] = set()
        self._in_flight: Final = [0 for _ in Kind]
        self._bytes = 0
        self._held_bytes = 0
        # Callers that wait for a permit, and those of them that are readers.
        self._waiting = 0
        self._readers_waiting = 0
        self._closed = False
        _of_process.add(self)

    def submit(
        self, kind: Kind, size_bytes: int, run: Callable[[], _T], buffer_bytes: int | None = None
    ) -> Future[_T]:
        """Run in a thread of the pool what brings size_bytes; for 0 the task takes its own permit.

        Else there is one for buffer_bytes, where they are less. The future may be cancelled until it runs.
        After ``close`` it is cancelled from the start.
        """
        task = _Task(kind, size_bytes, run, buffer_bytes)
        self._submit(task)
        return task.future

    def _submit(self, task: _Task) -> None:
        with self._lock:
            if self._closed:
                task.cancel()
            else:
                self._queues[task.kind][task.is_part].append(task)
                self._begin_due()

    def run_all(
        self,
        kind: Kind,
        tasks: Sequence[tuple[int, Callable[[], _T]] | tuple[int, Callable[[], _T], int]],
    ) -> list[_T]:
        """Run the tasks, each given as to ``submit``, side by side; return what they return, in order.

        A single one runs in the calling thread, unless that is the main thread: a client's native code hears
        of no interrupt, and the main thread is to end at once. What runs then goes on for itself. Raises:
        what the first in order raised, when all have ended.
        """
        # All are known before the first may run: an interrupt misses none.
        made = [_Task(kind, *task) for task in tasks]
        if len(made) == 1 and not _is_main():
            with self.permit(kind, made[0].buffer_bytes):
                return [made[0].run()]
        try:
            for task in made:
                self._submit(task)
            # In steps: an interrupt that comes just before the thread blocks does not wake it.
            while wait([task.future for task in made], _STEP_S).not_done:
                continue
        except BaseException:
            for task in made:
                task.future.cancel()
            raise
        try:
            return [task.future.result() for task in made]
        except CancelledError:
            raise _closed_meanwhile() from None

    def run_one(self, run: Callable[[], _T]) -> _T:
        """Run a task that takes its own permit, for a reader, as ``run_all`` does a single one."""
        return self.run_all(Kind.DEMAND, [(0, run)])[0] if _is_main() else run()

    @contextmanager
    def permit(self, kind: Kind, size_bytes: int) -> Iterator[None]:
        """Hold a permit in the calling thread, which holds no other; waits for one.

        Raises: Closed (meanwhile).
        """
        with self._lock:
            if not self._may_start(kind, size_bytes):
                self._wait_for_permit(kind, size_bytes)
            self._take_permit(kind, size_bytes)
        try:
            yield
        finally:
            with self._lock:
                self._give_permit(kind, size_bytes)
                self._begin_due()

    def try_hold(self, size_bytes: int) -> bool:
        """Set memory aside for what is fetched ahead of a reader; return whether there was room.

        It counts until ``unhold``, against what else is fetched ahead. Readers never wait for it.
        """
        with self._lock:
            if self._held_bytes + self._bytes + size_bytes > self.limits.memory_bytes:
                return False
            self._held_bytes += size_bytes
            return True

    def unhold(self, size_bytes: int) -> None:
        """Give back what ``try_hold`` set aside."""
        with self._lock:
            self._held_bytes -= size_bytes

    def status(self) -> dict[str, int]:
        """Return limits and use, of this process."""
        with self._lock:
            return {
                "threads_max": self.limits.fetch_threads,
                "in_flight": sum(self._in_flight),
                "in_flight_max": self.limits.in_flight_max,
                "queued": sum(len(queue) for queues in self._queues for queue in queues),
                "memory_bytes": self._bytes + self._held_bytes,
                "memory_bytes_max": self.limits.memory_bytes,
                "readahead_bytes": self._held_bytes,
                "readahead_bytes_max": self.limits.readahead_bytes,
            }

    def close(self) -> None:
        """Cancel what waits, and wait a moment for what runs; what is not ended then is left to itself.

        Whoever waits for it all the same, or for a permit, is told that the cache was closed.
        """
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            waiting = [task for queues in self._queues for queue in queues for task in queue]
            for queues in self._queues:
                for queue in queues:
                    queue.clear()
        for task in waiting:
            task.cancel()
        self._workers.close(_PATIENCE_S)
        with self._lock:
            given_up = list(self._at_work)
        for task in given_up:
            task.give_up()

    def _work(self, task: _Task) -> None:
        """Run a task, and then those that are due, until there is none: no thread waits for a turn."""
        following: _Task | None = task
        while following is not None:
            done = following
            settle = done.do()
            with self._lock:
                self._end(done)
                following = self._next_due()
                self._begin_due()
            # After the permit: whoever has the result finds the room that it took.
            settle()

    def _begin_due(self) -> None:
        """Give tasks that are due to threads, while there are any left."""
        while sum(self._running) < self.limits.fetch_threads and (task := self._next_due()) is not None:
            self._workers.run(partial(self._work, task))

    def _next_due(self) -> _Task | None:
        """Take the first task that may start, and account for it."""
        for kind, queues in zip(Kind, self._queues, strict=True):
            for tasks in queues:
                while tasks and tasks[0].future.cancelled():
                    tasks.popleft().cancel()
                if tasks and self._has_thread(kind) and self._is_due(tasks[0]):
                    task = tasks.popleft()
                    self._begin(task)
                    return task
        return None

    def _begin(self, task: _Task) -> None:
        self._at_work.add(task)
        self._running[task.kind] += 1
        if task.is_part:
            if not any(self._parts_running):
                self._streams.begin()
            self._parts_running[task.kind] += 1
        if task.size_bytes:
            self._take_permit(task.kind, task.buffer_bytes)

    def _end(self, task: _Task) -> None:
        self._at_work.discard(task)
        self._running[task.kind] -= 1
        if task.is_part:
            self._parts_running[task.kind] -= 1
            self._streams.end(task.size_bytes)
        if task.size_bytes:
            self._give_permit(task.kind, task.buffer_bytes)

    def _is_due(self, task: _Task) -> bool:
        if task.is_part and not self._has_stream(task.kind):
            return False
        return task.size_bytes == 0 or self._may_start(task.kind, task.buffer_bytes)

    def _has_stream(self, kind: Kind) -> bool:
        """Say whether one more part is worth it; those of readers do not wait for those of others."""
        before = self._parts_running[:1] if kind is Kind.DEMAND else self._parts_running
        return sum(before) < self._streams.count

    def _has_thread(self, kind: Kind) -> bool:
        running = self._running[Kind.READAHEAD] + self._running[Kind.LOAD]
        return kind is Kind.DEMAND or running < _without_share(self.limits.fetch_threads)

    def _wait_for_permit(self, kind: Kind, size_bytes: int) -> None:
        is_reader = kind is Kind.DEMAND
        self._waiting += 1
        self._readers_waiting += is_reader
        try:
            self._changed.wait_for(lambda: self._closed or self._may_start(kind, size_bytes))
            if self._closed:
                raise _closed_meanwhile()
        finally:
            self._waiting -= 1
            self._readers_waiting -= is_reader

    def _may_start(self, kind: Kind, size_bytes: int) -> bool:
        in_flight = sum(self._in_flight)
        if in_flight >= self.limits.in_flight_max:
            return False
        if in_flight and self._bytes + size_bytes > self.limits.memory_bytes:
            return False
        if kind is Kind.DEMAND:
            return True
        others = in_flight - self._in_flight[Kind.DEMAND]
        return not self._readers_waiting and others < _without_share(self.limits.in_flight_max)

    def _take_permit(self, kind: Kind, size_bytes: int) -> None:
        self._in_flight[kind] += 1
        self._bytes += size_bytes

    def _give_permit(self, kind: Kind, size_bytes: int) -> None:
        self._in_flight[kind] -= 1
        self._bytes -= size_bytes
        if self._waiting:
            self._changed.notify_all()


def _without_share(total: int) -> int:
    """Return what is left of a number of threads or permits without the share that readers keep."""
    return max(total - max(total // _DEMAND_SHARE, 1), 1)


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()


def _closed_meanwhile() -> Closed:
    return Closed("the cache was closed meanwhile")


def _unless_settled(settle: Callable[[], None]) -> None:
    with suppress(InvalidStateError):
        settle()


# Those of this process whose threads the interpreter's end would find in the middle of something.
_of_process: Final[weakref.WeakSet[FetchPool]] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pool in list(_of_process):
        pool.close()


os.register_at_fork(after_in_child=_of_process.clear)
