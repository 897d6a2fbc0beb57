"""Keeps forks and gRPC apart, which does not survive one.

A child that is forked in the middle of a call crashes now and then, though it calls nobody itself. So a fork
has the calls cancelled that threads make on their own, and waits for their end, and none begins until it is
done. And a child leaves alone what was gRPC's in its parent: an object of grpc.aio that is garbage waits, as
it is collected, for a thread that the child does not have, for ever and with the interpreter's lock.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# No call outlives its cancelling for so long; if one did, a fork would not wait for ever.
_PATIENCE_S = 5.0


class _Gate:
    """The calls of one process. Threads: any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._cancels: dict[object, Callable[[], object]] = {}
        self._forks = 0

    @contextmanager
    def pass_through(self, cancel: Callable[[], object]) -> Iterator[None]:
        key = object()
        with self._changed:
            self._changed.wait_for(lambda: not self._forks)
            self._cancels[key] = cancel
        try:
            yield
        finally:
            with self._changed:
                del self._cancels[key]
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._forks += 1
            for cancel in self._cancels.values():
                cancel()
            self._changed.wait_for(lambda: not self._cancels, _PATIENCE_S)

    def open(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()


_gate = _Gate()


def _begin_anew() -> None:
    global _gate
    _gate = _Gate()
    # What there is already is collected no more, garbage or not.
    gc.freeze()


os.register_at_fork(
    before=lambda: _gate.close(), after_in_parent=lambda: _gate.open(), after_in_child=_begin_anew
)


class _User:
    """The process, of this one and those that it was forked from, that has called by gRPC."""

    pid: int | None = None


def may_call() -> bool:
    """Say whether this process may call by gRPC, and note that it does; not if its parent has."""
    if _User.pid not in (None, os.getpid()):
        return False
    _User.pid = os.getpid()
    return True


@contextmanager
def apart_from_forks(cancel: Callable[[], object]) -> Iterator[None]:
    """Have no fork happen in a with statement; cancel makes it end, from another thread, and at any time."""
    with _gate.pass_through(cancel):
        yield
