"""How many threads wait for askers to take what they are sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from forebay.peer.frames import Data

# Nobody who reads lets a piece wait for so long: an asker gives up a silent peer by then.
STALLED_S: Final = 2.0


class Sends(Protocol):
    """Where answers go, see ``forebay.peer.answer.Sink``."""

    def send(self, parts: Sequence[Data]) -> None: ...

    def send_at_once(self, frame: bytes) -> None: ...


class Sending:
    """The sends of one member's threads that are under way. Threads: any."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Have none."""
        self._now_s: Final = now_s
        self._lock: Final = threading.Lock()
        self._since_s: Final[dict[object, float]] = {}

    def to(self, sink: Sends) -> Sends:
        """Return the same sink, whose sends count."""
        return _Counted(self, sink)

    def begin(self) -> object:
        """Count one more until ``end`` is given what this returns."""
        one = object()
        with self._lock:
            self._since_s[one] = self._now_s()
        return one

    def end(self, one: object) -> None:
        """Count it no more."""
        with self._lock:
            del self._since_s[one]

    def stalled_count(self) -> int:
        """Return how many have gone on for STALLED_S."""
        with self._lock:
            until_s = self._now_s() - STALLED_S
            return sum(since_s <= until_s for since_s in self._since_s.values())


class _Counted:
    def __init__(self, sending: Sending, sink: Sends) -> None:
        self._sending = sending
        self._sink = sink

    def send(self, parts: Sequence[Data]) -> None:
        one = self._sending.begin()
        try:
            self._sink.send(parts)
        finally:
            self._sending.end(one)

    def send_at_once(self, frame: bytes) -> None:
        self._sink.send_at_once(frame)
