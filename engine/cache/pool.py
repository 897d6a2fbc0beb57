"""The requests of one process: so many at a time, so many bytes in memory, readers first.

A *permit* stands for one request and the buffer that it fills. There are `in_flight_max` of them, and their
bytes stay within `memory_bytes`; a request larger than that waits until it is alone. Readers that wait
(DEMAND) come before what is fetched ahead for them, and that before loads; a share of the permits and of the
threads is left to readers, so that one never waits for a load's request to end.

It is no place for tasks that wait for one another: a task given to `submit` waits for requests only.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, Final, TypeVar

from forebay.config import MIB, parse_bytes
from forebay.errors import Closed, ConfigError

_T = TypeVar("_T")

# Of permits and threads, this share is never used for anything but readers.
_DEMAND_SHARE: Final = 4


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
    __slots__ = ("future", "kind", "run", "size_bytes")

    def __init__(self, kind: Kind, size_bytes: int, run: Callable[[], Any]) -> None:
        self.kind = kind
        self.size_bytes = size_bytes
        self.run = run
        self.future: Future[Any] = Future()


class FetchPool:
    """The threads and permits of one process. Threads: any."""

    def __init__(self, limits: FetchLimits) -> None:
        """Take the limits; threads are started as they are needed."""
        self.limits: Final = limits
        self._threads: Final = ThreadPoolExecutor(limits.fetch_threads, thread_name_prefix="forebay-fetch")
        # Reentrant: a file that the garbage collector closes gives memory back from wherever it finds itself.
        # Entered as itself: an interrupt within Condition's own __enter__ would leave it locked.
        self._lock: Final = threading.RLock()
        self._changed: Final = threading.Condition(self._lock)
        # By kind: what waits; how many tasks run; how many permits are held.
        self._queues: Final[list[deque[_Task]]] = [deque() for _ in Kind]
        self._running: Final = [0 for _ in Kind]
        self._in_flight: Final = [0 for _ in Kind]
        self._bytes = 0
        self._held_bytes = 0
        # Callers that wait for a permit, and those of them that are readers.
        self._waiting = 0
        self._readers_waiting = 0
        self._closed = False

    def submit(self, kind: Kind, size_bytes: int, run: Callable[[], _T]) -> Future[_T]:
        """Run in a thread of the pool, under a permit for size_bytes; for 0 the task takes its own.

        The future may be cancelled until it runs. After ``close`` it is cancelled from the start.
        """
        task = _Task(kind, size_bytes, run)
        with self._lock:
            if self._closed:
                _cancel(task)
            else:
                self._queues[kind].append(task)
                self._begin_due()
        return task.future

    def run_all(self, kind: Kind, tasks: list[tuple[int, Callable[[], _T]]]) -> list[_T]:
        """Run the tasks, (bytes, function) each, side by side, and return what they return, in order.

        A single one runs in the calling thread, unless that is the main thread: a client's native code hears
        of no interrupt, and the main thread is to end at once. What runs then goes on for itself. Raises:
        what the first in order raised, when all have ended.
        """
        if len(tasks) == 1 and not _is_main():
            size_bytes, run = tasks[0]
            with self.permit(kind, size_bytes):
                return [run()]
        futures: list[Future[_T]] = []
        try:
            futures += (self.submit(kind, size_bytes, run) for size_bytes, run in tasks)
            wait(futures)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        try:
            return [future.result() for future in futures]
        except CancelledError:
            raise Closed("the cache was closed meanwhile") from None

    def run_one(self, run: Callable[[], _T]) -> _T:
        """Run a task that takes its own permit, for a reader, as ``run_all`` does a single one."""
        return self.run_all(Kind.DEMAND, [(0, run)])[0] if _is_main() else run()

    @contextmanager
    def permit(self, kind: Kind, size_bytes: int) -> Iterator[None]:
        """Hold a permit in the calling thread, which holds no other; waits for one."""
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
                "queued": sum(map(len, self._queues)),
                "memory_bytes": self._bytes + self._held_bytes,
                "memory_bytes_max": self.limits.memory_bytes,
                "readahead_bytes": self._held_bytes,
                "readahead_bytes_max": self.limits.readahead_bytes,
            }

    def close(self) -> None:
        """Cancel what waits and wait for what runs."""
        with self._lock:
            self._closed = True
            waiting = [task for queue in self._queues for task in queue]
            for queue in self._queues:
                queue.clear()
        for task in waiting:
            _cancel(task)
        self._threads.shutdown()

    def _work(self, task: _Task) -> None:
        """Run a task, and then those that are due, until there is none: no thread waits for a turn."""
        following: _Task | None = task
        while following is not None:
            done = following
            settle = _run(done)
            with self._lock:
                self._running[done.kind] -= 1
                if done.size_bytes:
                    self._give_permit(done.kind, done.size_bytes)
                following = self._next_due()
                self._begin_due()
            # After the permit: whoever has the result finds the room that it took.
            settle()

    def _begin_due(self) -> None:
        """Give tasks that are due to threads, while there are any left."""
        while sum(self._running) < self.limits.fetch_threads and (task := self._next_due()) is not None:
            self._threads.submit(self._work, task)

    def _next_due(self) -> _Task | None:
        """Take the first task that may start, and account for it."""
        for kind, queue in zip(Kind, self._queues, strict=True):
            while queue and queue[0].future.cancelled():
                _cancel(queue.popleft())
            if queue and self._has_thread(kind) and self._may_start(kind, queue[0].size_bytes):
                task = queue.popleft()
                self._running[kind] += 1
                if task.size_bytes:
                    self._take_permit(kind, task.size_bytes)
                return task
        return None

    def _has_thread(self, kind: Kind) -> bool:
        running = self._running[Kind.READAHEAD] + self._running[Kind.LOAD]
        return kind is Kind.DEMAND or running < _without_share(self.limits.fetch_threads)

    def _wait_for_permit(self, kind: Kind, size_bytes: int) -> None:
        is_reader = kind is Kind.DEMAND
        self._waiting += 1
        self._readers_waiting += is_reader
        try:
            self._changed.wait_for(partial(self._may_start, kind, size_bytes))
        finally:
            self._waiting -= 1
            self._readers_waiting -= is_reader

    def _may_start(self, kind: Kind, size_bytes: int) -> bool:
        if size_bytes == 0:
            return True
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


def _cancel(task: _Task) -> None:
    """Cancel a task that nobody runs, and tell those who wait for it."""
    if task.future.cancel():
        task.future.set_running_or_notify_cancel()


def _run(task: _Task) -> Callable[[], None]:
    """Run a task, and return what puts the outcome into its future."""
    if not task.future.set_running_or_notify_cancel():
        return _nothing
    try:
        return partial(task.future.set_result, task.run())
    except BaseException as error:  # noqa: BLE001  (whoever waits for the future raises it)
        return partial(task.future.set_exception, error)


def _nothing() -> None:
    """Settle a task that was cancelled."""
