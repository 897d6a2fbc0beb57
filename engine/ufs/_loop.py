"""The event loop of this process for asynchronous file systems of fsspec, run by a daemon thread.

fsspec has such a loop itself, but a forked child inherits its objects together with their file descriptors.
What the child then drops or finalizes at its exit would take the parent's sockets out of the epoll instance
that both hold, and the parent would wait for answers that it is no longer told of. This loop does nothing in
another process than its own: there it does not run, and its selector knows of no socket.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

_T = TypeVar("_T")


class _OwnersSelector(selectors.DefaultSelector):
    """A selector that a forked child finds empty."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        super().__init__()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return super().get_map() if self._pid == os.getpid() else {}


class _OwnersLoop(asyncio.SelectorEventLoop):
    """A loop that does not run in a forked child, whatever its fields say."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        super().__init__(_OwnersSelector())

    def is_running(self) -> bool:
        return super().is_running() and self._pid == os.getpid()


class _Loops:
    """The loop of this process, and those that came over a fork, kept so that nothing ends them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: list[_OwnersLoop] = []
        self._is_current = False

    def after_fork(self) -> None:
        # A thread of the parent may have held the lock.
        self._lock = threading.Lock()
        self._is_current = False

    def current(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if not self._is_current:
                loop = _OwnersLoop()
                self._made.append(loop)
                threading.Thread(target=loop.run_forever, name="forebay-fsspec", daemon=True).start()
                self._is_current = True
            return self._made[-1]


_loops: Final = _Loops()
os.register_at_fork(after_in_child=_loops.after_fork)


def loop_of_process() -> asyncio.AbstractEventLoop:
    """Return the loop, starting it if this process has none yet. Threads: any but the loop's own."""
    return _loops.current()


def run_in_loop(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine in the loop and return its result; cancel it if this thread is interrupted.

    Raises what it raises, but for a bare TimeoutError, which asyncio makes anew without its file name.
    Threads: any but the loop's own.
    """
    loop = loop_of_process()
    given_up = threading.Event()
    tasks: list[asyncio.Task[Any] | None] = []

    async def run() -> _T:
        tasks.append(asyncio.current_task())
        if given_up.is_set():
            coroutine.close()
            raise asyncio.CancelledError
        return await coroutine

    def cancel() -> None:
        for task in filter(None, tasks):
            task.cancel()

    try:
        return asyncio.run_coroutine_threadsafe(run(), loop).result()
    except BaseException:
        # An interrupt may come before there is a future to cancel, but not before there is the flag.
        given_up.set()
        loop.call_soon_threadsafe(cancel)
        raise
