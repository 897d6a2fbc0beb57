"""Ctrl-C at any moment of a transaction: whatever was begun is given back, and nobody is held up by it."""

from __future__ import annotations

import os
import random
import signal
import sys
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Final

import pytest

from forebay.config import MIB
from forebay.meta import environment, guard
from forebay.meta.environment import Environment
from tests.faults._child import Child

STRIKES: Final = 150
ROUNDS_MAX: Final = 100_000
# About as long as a transaction takes.
DELAY_S_MAX: Final = 200e-6
PATIENCE_S: Final = 2.0


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def interrupt_transactions(link: Connection, path: str, writes: bool) -> None:
    """Begin and end transactions, each struck at another moment; then fork, and stay until told."""
    signal.signal(signal.SIGALRM, interrupt)
    delays = random.Random(path)
    struck = 0
    with Environment(path, map_bytes=MIB, durable=False) as env:
        for number in range(ROUNDS_MAX):
            if struck == STRIKES:
                break
            try:
                signal.setitimer(signal.ITIMER_REAL, delays.uniform(1e-6, DELAY_S_MAX))
                with env.writing(PATIENCE_S) if writes else env.reading() as transaction:
                    if writes:
                        transaction.put(b"key", b"%d" % number)
                    else:
                        transaction.get(b"key")
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                struck += 1
            with suppress(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0)
        link.send(struck)
        # A fork waits for the transactions that go on.
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        link.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        link.recv()


@pytest.mark.parametrize("writes", [False, True])
def test_an_interrupt_at_any_moment_leaves_nothing_locked(tmp_path: Path, writes: bool) -> None:
    path = str(tmp_path / "file.lmdb")
    with Environment(path, map_bytes=MIB, durable=False) as env:
        with env.writing() as transaction:
            transaction.put(b"key", b"begun")
        with Child(interrupt_transactions, path, writes) as child:
            assert child.receive() == STRIKES
            assert child.receive() == 0
            # It lives on, and so would its locks.
            for number in range(5):
                with env.writing(PATIENCE_S) as transaction:
                    transaction.put(b"key", b"%d" % number)
            with env.reading() as transaction:
                assert transaction.get(b"key") == b"4"
            child.send(None)
            child.result()


class StrikeAtCall:
    """Interrupts this thread at the n-th call within the modules that begin and end transactions."""

    def __init__(self, number: int) -> None:
        self._left = number
        self.struck: str | None = None

    def trace(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename in (environment.__file__, guard.__file__):
            self._left -= 1
            if self._left == 0:
                sys.settrace(None)
                self.struck = frame.f_code.co_qualname
                raise KeyboardInterrupt


def transact_struck(env: Environment, number: int, *, writes: bool) -> str | None:
    """Run one transaction with a strike at a call of it; return at which, None if it has fewer calls."""
    strike = StrikeAtCall(number)
    sys.settrace(strike.trace)
    try:
        with env.writing(PATIENCE_S) if writes else env.reading() as transaction:
            transaction.get(b"key")
    except KeyboardInterrupt:
        assert strike.struck is not None
    finally:
        sys.settrace(None)
    return strike.struck


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("writes", [False, True])
def test_an_interrupt_before_any_line_of_a_transaction_leaves_nothing_locked(
    tmp_path: Path, writes: bool
) -> None:
    with Environment(str(tmp_path / "file.lmdb"), map_bytes=MIB, durable=False) as env:
        struck = set()
        for number in count(1):
            where = transact_struck(env, number, writes=writes)
            if where is None:
                break
            struck.add(where)
            # A reader that was left behind lets one more commit pass.
            for _ in range(2):
                with env.writing(PATIENCE_S) as transaction:
                    transaction.put(b"key", b"value")
    assert {"Guard.end_write" if writes else "Guard.end_read", "Transaction.__exit__"} <= struck
