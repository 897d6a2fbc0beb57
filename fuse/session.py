"""A mount by pyfuse3: made, served by an event loop, and ended by the kernel or by whoever asks for it.

pyfuse3 keeps its session in global variables, so there is one a process. Beside handlers.py the only module
that knows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from typing import Final

import pyfuse3
import trio

from forebay.fuse.handlers import Handlers
from forebay.fuse.operations import Operations

_log = logging.getLogger(__name__)

# Requests that wait for the under storage at a time; others wait for a thread.
_THREADS_MAX: Final = 64
# Of pyfuse3's tasks each has one request; more than there are threads, so that hits go on meanwhile.
_TASKS_MAX: Final = _THREADS_MAX + 32
_TASKS_IDLE: Final = 8

_WATCH_STEP_S: Final = 1.0
# What is under way when the mount ends is waited for, and then left behind.
_PATIENCE_S: Final = 1.0


class Session:
    """One mount. Threads: one runs it, any may stop it."""

    def __init__(self, operations: Operations) -> None:
        """Serve these operations."""
        self._operations: Final = operations
        self._lock: Final = Lock()
        self._token: trio.lowlevel.TrioToken | None = None
        self._is_stopped = False

    def run(self, mountpoint: str, options: set[str], on_mounted: Callable[[], None]) -> None:
        """Mount, call on_mounted, and serve until it is unmounted or ``stop`` is called.

        Raises: OSError (it could not be mounted; libfuse has said why on standard error).
        """
        try:
            pyfuse3.init(Handlers(self._operations, _THREADS_MAX), mountpoint, options)
        except RuntimeError as error:
            raise OSError(f"{mountpoint}: could not be mounted ({error})") from error
        try:
            trio.run(self._serve, on_mounted)
        finally:
            pyfuse3.close()

    def stop(self) -> None:
        """End the mount: those who use it get an error. Threads: any; it may be called at any time."""
        with self._lock:
            self._is_stopped = True
            if self._token is not None:
                self._token.run_sync_soon(self._terminate)

    async def _serve(self, on_mounted: Callable[[], None]) -> None:
        self._scope = trio.CancelScope()
        with self._lock:
            self._token = trio.lowlevel.current_trio_token()
            is_stopped = self._is_stopped
        try:
            on_mounted()
            if is_stopped:
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                with self._scope:
                    await pyfuse3.main(min_tasks=_TASKS_IDLE, max_tasks=_TASKS_MAX)
                nursery.cancel_scope.cancel()
        finally:
            with self._lock:
                self._token = None

    def _terminate(self) -> None:
        pyfuse3.terminate()
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + _PATIENCE_S)

    async def _watch(self) -> None:
        """Have the kernel forget what it keeps for ever once something of it has become different."""
        while True:
            await trio.sleep(_WATCH_STEP_S)
            await trio.to_thread.run_sync(self._forget_outdated, abandon_on_cancel=True)

    def _forget_outdated(self) -> None:
        try:
            names = self._operations.outdated()
        except (OSError, ValueError, LookupError) as error:
            _log.info("%s", error)
            return
        for name in names or ():
            try:
                pyfuse3.invalidate_entry(pyfuse3.ROOT_INODE, name)
            except OSError as error:
                # The kernel does not know of it.
                _log.debug("%r: %s", name, error)
