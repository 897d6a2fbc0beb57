"""The bound on what one process has asked of peers and not received: messages and bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final


class InFlight:
    """Lets so many messages, for so many bytes together, be under way at a time. Threads: any."""

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        """Let none be under way yet."""
        self.messages_max: Final = messages_max
        self.bytes_max: Final = bytes_max
        self._changed: Final = threading.Condition()
        self._messages = 0
        self._bytes = 0

    @property
    def messages(self) -> int:
        """Messages that are under way."""
        return self._messages

    @property
    def size_bytes(self) -> int:
        """Bytes that are under way."""
        return self._bytes

    @contextmanager
    def passing(self, size_bytes: int, patience_s: float) -> Iterator[bool]:
        """Wait for room for a message and keep it while the body runs; gives False if there was none.

        A message for more bytes than the bound goes when no other is under way.
        """
        with self._changed:
            has_room = self._changed.wait_for(lambda: self._fits(size_bytes), patience_s)
            if has_room:
                self._messages += 1
                self._bytes += size_bytes
        try:
            yield has_room
        finally:
            if has_room:
                with self._changed:
                    self._messages -= 1
                    self._bytes -= size_bytes
                    self._changed.notify_all()

    def _fits(self, size_bytes: int) -> bool:
        if self._messages == 0:
            return True
        return self._messages < self.messages_max and self._bytes + size_bytes <= self.bytes_max
