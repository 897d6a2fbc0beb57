"""The end of a storage, as whoever is at a request in another thread meets it."""

from __future__ import annotations

import threading
from typing import Final

from forebay.errors import Closed


class Stop:
    """Set once, by ``close``. Threads: any."""

    def __init__(self) -> None:
        """Begin unset."""
        self._event: Final = threading.Event()

    def set(self) -> None:
        """Let pauses end, and what looks here raise Closed."""
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait, until it is set at most; return whether it is."""
        return self._event.wait(seconds)

    def check(self, uri: str) -> None:
        """Raise Closed, naming what was not come by, if it is set."""
        if self._event.is_set():
            raise Closed(f"{uri}: the cache was closed meanwhile")

    def pause(self, seconds: float, uri: str) -> None:
        """Wait between two attempts. Raises: Closed."""
        self._event.wait(seconds)
        self.check(uri)
