"""An event loop for one descriptor and many threads: the part of trio that pyfuse3 uses, and no more.

Requests come one behind the other on one descriptor, and nearly all are answered without a wait. trio goes
through its scheduler three times for each, which takes longer than the answer; here whoever reads the
descriptor goes on reading while there are requests and it has not to wait, and only then another task takes
its place. pyfuse3 lets its loop be replaced (its own ``pyfuse3.asyncio`` does so): it looks every name up in
what ``pyfuse3.trio`` is at the time.

Source: docs/fuse.md has the figures.
"""

from __future__ import annotations

import os
import select
import time
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, Final, Self, TypeVar, TypeVarTuple

from forebay.cache import Workers
from forebay.fuse.waiting import Waiting

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")

_MS_PER_S: Final = 1_000
_FOR_EVER: Final = -1.0
# Where requests leave no time for it, the oldest is given up.
_IDLE_WORK_MAX: Final = 1_024


class ClosedResourceError(Exception):
    """The descriptor that was waited for is about to be closed."""


class Task:
    """A coroutine that runs, and its name."""

    __slots__ = ("coroutine", "name", "on_end")

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], name: str, on_end: Callable[[Exception | None], None]
    ) -> None:
        """Begin nothing yet; on_end is told what ended it, if it was an exception."""
        self.coroutine: Final = coroutine
        self.name: Final = name
        self.on_end: Final = on_end


_Park = Callable[[Task], None]


@types.coroutine
def _suspended(park: _Park) -> Generator[_Park, Any, Any]:
    """Stop the task that runs; park sees to it that it goes on, with what is returned here."""
    return (yield park)


class Loop:
    """Runs tasks in one thread, until the first of them has ended; once. Threads: one, but for ``stop``."""

    def __init__(self, on_stop: Callable[[], None], patience_s: float) -> None:
        """Call on_stop, in the loop's thread, when it is to end, and wait that long for tasks in threads."""
        self._on_stop: Final = on_stop
        self._patience_s: Final = patience_s
        self._workers: Final = Workers("forebay-fuse")
        self._ready: Final[deque[tuple[Task, Any, BaseException | None]]] = deque()
        # What threads have come to, and the descriptor that tells of it.
        self._finished: Final[deque[tuple[Task, Any, BaseException | None]]] = deque()
        self._idle_work: Final[deque[Callable[[], None]]] = deque(maxlen=_IDLE_WORK_MAX)
        self._event: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._in_threads: Final[set[Task]] = set()
        self._tasks: Final[set[Task]] = set()
        self._current: Task | None = None
        self._lock: Final = _Lock(self._ready)
        self._requests: int | None = None
        self._poll: Final = select.poll()
        self._poll.register(self._event, select.POLLIN)
        self._waiting: Final = Waiting(self._poll.poll)
        # Over which nobody writes to a descriptor that is closed, and perhaps somebody else's by now.
        self._event_lock: Final = Lock()
        self._is_over = False
        self._is_stop_asked = False
        self._is_closing = False
        self._deadline_s: float | None = None

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine and the tasks that it starts to its end. Raises: what it raises."""
        ends: list[Exception | None] = []
        self.start(main, "main", ends.append)
        while not ends:
            if self._ready:
                self._step(*self._ready.popleft())
            elif self._lock.pass_on():
                continue
            elif not self._wait_for_threads():
                break
        # Whoever still waits for a thread is left behind with it.
        for task in list(self._tasks):
            task.coroutine.close()
        self._workers.close(0.0)
        with self._event_lock:
            self._is_over = True
            os.close(self._event)
        for error in ends:
            if error is not None:
                raise error

    def stop(self) -> None:
        """Have the loop end. Threads: any, at any time."""
        self._is_stop_asked = True
        self._wake()

    async def in_thread(self, work: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
        """Run what may wait in a thread. Raises: what it raises."""
        found: _T = await _suspended(partial(self._hand_over, partial(work, *arguments)))
        return found

    def when_idle(self, work: Callable[[], None]) -> None:
        """Do some work, that neither waits nor raises and may be left out, as soon as there is no request."""
        self._idle_work.append(work)

    def face(self) -> types.SimpleNamespace:
        """Return what stands in the place of trio."""
        lowlevel = types.SimpleNamespace(
            current_task=lambda: self._current,
            current_trio_token=lambda: None,
            notify_closing=self._notify_closing,
            wait_readable=self._wait_readable,
        )
        return types.SimpleNamespace(
            ClosedResourceError=ClosedResourceError,
            Lock=lambda: self._lock,
            lowlevel=lowlevel,
            open_nursery=lambda: _Nursery(self),
        )

    def start(
        self, coroutine: Coroutine[Any, Any, None], name: str, on_end: Callable[[Exception | None], None]
    ) -> None:
        """Start a task."""
        task = Task(coroutine, name, on_end)
        self._tasks.add(task)
        self.resume(task)

    def resume(self, task: Task) -> None:
        """Let a task that waits go on."""
        self._ready.append((task, None, None))

    def close_reading(self) -> None:
        """Let nobody wait for a request any more."""
        self._is_closing = True

    def _step(self, task: Task, value: Any, error: BaseException | None) -> None:
        """Run a task up to where it has to wait, or to its end."""
        self._current = task
        ended: Exception | None = None
        try:
            park = task.coroutine.send(value) if error is None else task.coroutine.throw(error)
        except StopIteration:
            pass
        except Exception as raised:  # noqa: BLE001  (whoever started it raises it)
            ended = raised
        else:
            park(task)
            return
        self._tasks.discard(task)
        task.on_end(ended)

    async def _wait_readable(self, descriptor: int) -> None:
        """Wait for a request, running what threads have come to meanwhile. Raises: ClosedResourceError."""
        if self._requests is None:
            self._requests = descriptor
            self._poll.register(descriptor, select.POLLIN)
            # Whoever asked may be killed before the request is read, and then a read would wait for the next
            # one, with the interpreter's lock.
            os.set_blocking(descriptor, False)
        while True:
            if self._is_closing:
                raise ClosedResourceError
            # An error, as after an unmount, is for whoever reads.
            ready = dict(self._work_or_wait())
            if self._event in ready:
                self._take_finished()
                await _suspended(self.resume)
            elif descriptor in ready:
                return

    def _work_or_wait(self) -> list[tuple[int, int]]:
        while self._idle_work:
            ready = self._poll.poll(0)
            if ready:
                return ready
            self._idle_work.popleft()()
        return self._waiting.wait()

    def _notify_closing(self, descriptor: int) -> None:
        self.close_reading()

    def _hand_over(self, work: Callable[[], Any], task: Task) -> None:
        self._in_threads.add(task)
        self._workers.run(partial(self._work, work, task))

    def _work(self, work: Callable[[], Any], task: Task) -> None:
        outcome: tuple[Task, Any, BaseException | None]
        try:
            outcome = (task, work(), None)
        except BaseException as error:  # noqa: BLE001  (the task raises it)
            outcome = (task, None, error)
        self._finished.append(outcome)
        self._wake()

    def _wake(self) -> None:
        """Have the loop look what threads have come to, unless it is over. Threads: any."""
        with self._event_lock:
            if not self._is_over:
                os.eventfd_write(self._event, 1)

    def _take_finished(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)
        while self._finished:
            outcome = self._finished.popleft()
            self._in_threads.discard(outcome[0])
            self._ready.append(outcome)
        if self._is_stop_asked and self._deadline_s is None:
            self._end()
            self._on_stop()

    def _wait_for_threads(self) -> bool:
        """Wait where nobody reads requests; False: those who are in threads are to be left behind."""
        timeout_s = _FOR_EVER if self._deadline_s is None else self._deadline_s - time.monotonic()
        if self._deadline_s is not None and timeout_s <= 0:
            return False
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        # No more than whether it is at its end: requests wait until a task is free.
        if self._requests is not None and self._deadline_s is None:
            poll.register(self._requests, 0)
        ready = dict(poll.poll(None if timeout_s == _FOR_EVER else timeout_s * _MS_PER_S))
        if self._event in ready:
            self._take_finished()
        elif ready:
            self._end()
        return True

    def _end(self) -> None:
        self._deadline_s = time.monotonic() + self._patience_s


class _Lock:
    """Who may read requests: given on by the loop, once whoever had it has to wait for something else."""

    def __init__(self, ready: deque[tuple[Task, Any, BaseException | None]]) -> None:
        self._ready: Final = ready
        self._is_held = False
        self._waiting: Final[deque[Task]] = deque()

    def pass_on(self) -> bool:
        """Let the first who waits have it, if nobody has; return whether there was one."""
        if self._is_held or not self._waiting:
            return False
        self._is_held = True
        self._ready.append((self._waiting.popleft(), None, None))
        return True

    async def __aenter__(self) -> None:
        if self._is_held:
            await _suspended(self._waiting.append)
        self._is_held = True

    async def __aexit__(self, *exception: object) -> None:
        self._is_held = False


class _Nursery:
    """Tasks that end before it does."""

    def __init__(self, loop: Loop) -> None:
        self._loop: Final = loop
        self._running = 0
        self._error: Exception | None = None
        self._resume: Callable[[], None] | None = None

    def start_soon(
        self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: object, name: str
    ) -> None:
        """Start a task; one that found no request after all begins anew."""
        self._running += 1
        self._start(partial(work, *arguments), name)

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        self._loop.start(work(), name, partial(self._ended, work, name))

    def _ended(
        self, work: Callable[[], Coroutine[Any, Any, None]], name: str, error: Exception | None
    ) -> None:
        if isinstance(error, BlockingIOError):
            self._start(work, name)
            return
        self._running -= 1
        if error is not None and self._error is None:
            # Nobody reads on where one could not.
            self._error = error
            self._loop.close_reading()
        if self._running == 0 and self._resume is not None:
            self._resume()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._running:
            await _suspended(self._wait)
        if self._error is not None:
            raise self._error

    def _wait(self, task: Task) -> None:
        self._resume = partial(self._loop.resume, task)
