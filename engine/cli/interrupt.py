"""The program around a command line: whatever it waits for, SIGINT and SIGTERM end it at once.

Python handles a signal in the main thread alone, and not while that is inside a library that waits for a
network. So the command runs in a second thread and the main thread only waits. What must not stay behind (a
half-written file, a hidden cursor) is registered here and undone first. The cache itself needs nothing: a
process may vanish at any moment.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

INTERRUPTED: Final = 130
TERMINATED: Final = 143


class _Terminated(BaseException):
    """SIGTERM came."""


_undoings: Final[list[Callable[[], None]]] = []


@contextmanager
def undone_if_interrupted(undo: Callable[[], None]) -> Iterator[None]:
    """Call undo if the program is interrupted meanwhile.

    It is called in another thread than the command's, which still runs, and which it may stop by keeping a
    lock: nothing comes after it.
    """
    _undoings.append(undo)
    try:
        yield
    finally:
        _undoings.remove(undo)


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def run_as_program(run: Callable[[], int]) -> int:
    """Run in a thread of its own and return the exit code; SIGINT and SIGTERM end the process at once."""
    codes: list[int] = []
    ended = threading.Event()

    def work() -> None:
        try:
            codes.append(run())
        finally:
            ended.set()

    try:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, _raise_terminated)
        threading.Thread(target=work, name="forebay-command", daemon=True).start()
        ended.wait()
    except (KeyboardInterrupt, _Terminated) as signalled:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        for undo in reversed(_undoings.copy()):
            undo()
        is_terminated = isinstance(signalled, _Terminated)
        os.write(2, b"forebay: terminated\n" if is_terminated else b"forebay: interrupted\n")
        os._exit(TERMINATED if is_terminated else INTERRUPTED)
    return codes[0] if codes else 1
