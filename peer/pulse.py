"""Tells who waits for an answer that it is still being worked at, every PULSE_S, from one thread."""

from __future__ import annotations

import logging
import threading
from typing import Final, Protocol

from forebay.peer.failures import Failures

_log = logging.getLogger(__name__)

PULSE_S: Final = 0.4


class Hears(Protocol):
    """Where a sign of life goes."""

    def send_at_once(self, frame: bytes) -> None: ...


class Pulse:
    """Sends a frame again and again for each answer under way. Threads: any."""

    def __init__(self) -> None:
        """Begin with none; the thread starts with the first."""
        self._lock: Final = threading.Lock()
        self._beats: Final[dict[object, tuple[Hears, bytes]]] = {}
        self._is_over: Final = threading.Event()
        self._failures: Final = Failures(
            _log, "whoever waits for an answer could not be told that it goes on"
        )
        self._thread: threading.Thread | None = None

    def begin(self, to: Hears, frame: bytes) -> object:
        """Send the frame from now on, PULSE_S apart, until ``end`` is given what this returns."""
        beat = object()
        with self._lock:
            self._beats[beat] = (to, frame)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="forebay-pulse", daemon=True)
                self._thread.start()
        return beat

    def end(self, beat: object) -> None:
        """Send it no more, except that one may be on its way."""
        with self._lock:
            self._beats.pop(beat, None)

    def close(self) -> None:
        """Stop the thread."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(PULSE_S):
            with self._lock:
                beats = list(self._beats.values())
            for to, frame in beats:
                try:
                    to.send_at_once(frame)
                except Exception as error:  # noqa: BLE001  (the others wait as well, and take silence for death)
                    self._failures.tell(error)
