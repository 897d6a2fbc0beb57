"""The program around a command line: whatever it waits for, SIGINT and SIGTERM end it at once.

Python handles a signal in the main thread alone, and not while that is inside a library that waits for a
network. So the command runs in a second thread and the main thread only waits. What must not stay behind (a
half-written file, a hidden cursor) is registered here and undone first. The cache itself needs nothing: a
process may vanish at any moment. A command that goes on until it is told to end is asked first.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

INTERRUPTED: Final = 130
TERMINATED: Final = 143


class _Terminated(BaseException):
    """SIGTERM came."""


# Has a program end that is to be started again at once; to all others it is what the system makes of it.
RESTART: Final = signal.SIGUSR1

_undoings: Final[list[Callable[[], None]]] = []
_askings: Final[list[Callable[[], None]]] = []
_restartings: Final[list[Callable[[], None]]] = []

# A supervisor kills what has not ended after some time (systemd: 90 s), so it is better to end before.
_END_WAIT_S: Final = 20.0
_SAME_WISH_S: Final = 1.0
_STEP_S: Final = 0.2

_signalled_s = -math.inf
_is_undoing = threading.Event()


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


def say_nothing_if_undone() -> None:
    """Never return once an interrupt has begun to undo things: what fails then fails for that reason."""
    if _is_undoing.is_set():
        threading.Event().wait()


@contextmanager
def asked_to_end_if_interrupted(ask: Callable[[], None]) -> Iterator[None]:
    """Call ask if the program is interrupted meanwhile, and let the command end by itself.

    It is called in another thread than the command's. A second signal, or no end within 20 s, ends the
    program as if nobody had been asked.
    """
    _askings.append(ask)
    try:
        yield
    finally:
        _askings.remove(ask)


@contextmanager
def asked_to_restart_if_told(ask: Callable[[], None]) -> Iterator[None]:
    """Call ask if SIGUSR1 comes meanwhile, and let the command end by itself; in another thread than its."""
    _restartings.append(ask)
    try:
        yield
    finally:
        _restartings.remove(ask)


def _restart(number: int, frame: FrameType | None) -> None:
    """Ask whoever can be restarted; where there is nobody, do what the system does without us."""
    asked = _restartings.copy()
    for ask in asked:
        ask()
    if not asked:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _raise(number: int, frame: FrameType | None) -> None:
    """Raise what a signal means; one that comes right after another is the same wish.

    Some senders tell the process and then its group, such as timeout(1).
    """
    global _signalled_s
    now_s = time.monotonic()
    if now_s - _signalled_s < _SAME_WISH_S:
        return
    _signalled_s = now_s
    raise _Terminated if number == signal.SIGTERM else KeyboardInterrupt


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
        for number, default in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
        ):
            # One that our parent has had ignored stays so.
            if signal.getsignal(number) is default:
                signal.signal(number, _raise)
        if signal.getsignal(RESTART) is signal.SIG_DFL:
            signal.signal(RESTART, _restart)
        _run_until(ended, threading.Thread(target=work, name="forebay-command", daemon=True))
    except (KeyboardInterrupt, _Terminated) as signalled:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        _is_undoing.set()
        for undo in reversed(_undoings.copy()):
            undo()
        is_terminated = isinstance(signalled, _Terminated)
        os.write(2, b"forebay: terminated\n" if is_terminated else b"forebay: interrupted\n")
        os._exit(TERMINATED if is_terminated else INTERRUPTED)
    return codes[0] if codes else 1


def _run_until(ended: threading.Event, command: threading.Thread) -> None:
    """Run the command to its end; an interrupt is raised unless the command ends when asked to."""
    try:
        command.start()
        _wait(ended, math.inf)
    except (KeyboardInterrupt, _Terminated):
        # Who is quick to end is in the list no more when he has been asked.
        asked = _askings.copy()
        for ask in asked:
            ask()
        if not (asked and _wait(ended, _END_WAIT_S)):
            raise


def _wait(ended: threading.Event, timeout_s: float) -> bool:
    """Wait in steps: a signal that comes just before a wait begins does not end it, and is seen behind it."""
    end_s = time.monotonic() + timeout_s
    while not ended.wait(_STEP_S):
        if time.monotonic() > end_s:
            return False
    return True
