"""The thread of a member that exchanges settings with the others.

Every second it looks for what was changed here, which costs nothing where there was no commit, and hands that
on to all; and now and then it asks one of the others, each in its turn, for what is newer there, so that a
member that was away or was not reached catches up with all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

import grpc

from forebay.peer.failures import Failures
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.settings.exchange import SettingsExchange
from forebay.peer.settings.items import Item
from forebay.peer.settings.wire import Incoming, Taker, messages_of, summary_of

_log = logging.getLogger(__name__)

NOTE_EVERY_S: Final = 1.0
_PULL_EVERY_ROUNDS: Final = 5
_CALL_S: Final = 60.0


class AdminStub(Protocol):
    """The calls that are used of the service Admin."""

    @property
    def PullSettings(self) -> Callable[..., Any]:  # noqa: N802  (as in forebay.proto)
        """Yields what is newer."""

    @property
    def PushSettings(self) -> Callable[..., Any]:  # noqa: N802  (as in forebay.proto)
        """Takes items."""


class SettingsKeeper:
    """Exchanges settings until it is stopped."""

    def __init__(
        self,
        exchange: SettingsExchange,
        others: Callable[[], Sequence[tuple[str, AdminStub]]],
        *,
        note_every_s: float = NOTE_EVERY_S,
    ) -> None:
        """Exchange with those that others returns, each with the name that is logged of it."""
        self._exchange: Final = exchange
        self._others: Final = others
        self._note_every_s: Final = note_every_s
        self._stopping: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="forebay-settings", daemon=True)
        self._failures: Final = Failures(_log, "settings could not be looked through; they are in a moment")
        self._rounds = 0

    def start(self) -> None:
        """Begin, with a pull from each of the others, so that a member that comes has what they have."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for what is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def round(self) -> None:
        """Hand on what was changed here; in some rounds ask one of the others. Raises: as Cache."""
        others = list(self._others())
        changed = self._exchange.note()
        if changed:
            for name, stub in others:
                self._guarded(name, partial(push, self._exchange, stub, changed))
        if others and self._rounds % _PULL_EVERY_ROUNDS == 0:
            name, stub = others[self._rounds // _PULL_EVERY_ROUNDS % len(others)]
            self._guarded(name, partial(pull, self._exchange, stub))
        self._rounds += 1

    def _run(self) -> None:
        step = self._pull_all
        while True:
            try:
                step()
                step = self.round
            except Exception as error:  # noqa: BLE001  (else a member would have the settings of now for good)
                self._failures.tell(error)
            if self._stopping.wait(self._note_every_s):
                return

    def _pull_all(self) -> None:
        for name, stub in self._others():
            self._guarded(name, partial(pull, self._exchange, stub))

    def _guarded(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except grpc.RpcError as error:
            # Whoever does not answer catches up by asking.
            _log.info("settings could not be exchanged with %s: %s", name, _words(error))
        except (OSError, ValueError) as error:
            _log.warning("settings of %s are not understood: %s", name, error)


def pull(taker: Taker, stub: AdminStub, *, timeout_s: float = _CALL_S) -> int:
    """Make hold here what a member has newer; return how many items that were.

    Raises: grpc.RpcError; ConfigError (what it says is not understood); OSError (the disk is full).
    """
    with Incoming() as incoming:
        for message in stub.PullSettings(summary_of(taker.summary()), timeout=timeout_s):
            incoming.add(message)
        return incoming.take(taker).count


def push(
    exchange: SettingsExchange, stub: AdminStub, items: Sequence[Item], *, timeout_s: float = _CALL_S
) -> pb.SettingsSummary:
    """Hand items to a member; return what it knows then. Raises: grpc.RpcError."""
    summary: pb.SettingsSummary = stub.PushSettings(messages_of(exchange, items), timeout=timeout_s)
    return summary


def _words(error: grpc.RpcError) -> str:
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    return f"{code().name}: {details()}" if code and details else str(error)
