"""A mount by pyfuse3: made, served by an event loop, and ended by the kernel or by whoever asks for it.

pyfuse3 keeps its session in global variables, so there is one a process. Beside handlers.py the only module
that knows it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pyfuse3

from forebay.fuse.handlers import Handlers, WritingHandlers
from forebay.fuse.loop import Loop
from forebay.fuse.operations import Operations
from forebay.fuse.writing import Writing

_log = logging.getLogger(__name__)

# Each has one request, and a thread while it waits for the under storage.
_TASKS_MAX: Final = 128
_TASKS_IDLE: Final = 8

_WATCH_STEP_S: Final = 1.0
# What is under way when the mount ends is waited for, and then left behind.
_PATIENCE_S: Final = 1.0


class Session:
    """One mount. Threads: one runs it, any may stop it."""

    def __init__(self, operations: Operations) -> None:
        """Serve these operations."""
        self._operations: Final = operations
        self._loop: Final = Loop(pyfuse3.terminate, _PATIENCE_S)

    def run(self, mountpoint: str, options: set[str], on_mounted: Callable[[], None]) -> None:
        """Mount, call on_mounted, and serve until it is unmounted or ``stop`` is called.

        Raises: OSError (it could not be mounted; libfuse has said why on standard error).
        """
        try:
            pyfuse3.init(self._handlers(), mountpoint, options)
        except RuntimeError as error:
            raise OSError(f"{mountpoint}: could not be mounted ({error})") from error
        try:
            on_mounted()
            # As pyfuse3.asyncio puts itself there: it finds its loop by this name.
            pyfuse3.trio = self._loop.face()  # type: ignore[attr-defined]
            with self._watching():
                self._loop.run(pyfuse3.main(min_tasks=_TASKS_IDLE, max_tasks=_TASKS_MAX))
        finally:
            pyfuse3.close()

    def _handlers(self) -> Handlers:
        if isinstance(self._operations, Writing):
            return WritingHandlers(self._operations, self._loop)
        return Handlers(self._operations, self._loop)

    def stop(self) -> None:
        """End the mount: those who use it get an error. Threads: any, at any time once it is mounted."""
        self._loop.stop()

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Have the kernel forget what it keeps for ever once something of it has become different."""
        ending = threading.Event()

        def watch() -> None:
            while not ending.wait(_WATCH_STEP_S):
                self._forget_outdated()

        thread = threading.Thread(target=watch, name="forebay-fuse-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            # It may wait for the kernel, which waits for an answer; the unmount frees both.
            thread.join(_PATIENCE_S)

    def _forget_outdated(self) -> None:
        try:
            names = self._operations.outdated()
        except (OSError, ValueError, LookupError) as error:
            _log.info("%s", error)
            return
        for name in names:
            try:
                pyfuse3.invalidate_entry(pyfuse3.ROOT_INODE, name)
            except OSError as error:
                # The kernel does not know of it.
                _log.debug("%r: %s", name, error)
