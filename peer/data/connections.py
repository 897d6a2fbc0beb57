"""The connections of one process to one peer: made when one is wanted and none is idle, kept for the next."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from forebay.errors import Closed
from forebay.peer.data.connection import Connection


class Connections:
    """A pool, of one process: a forked child has none and closes what it has inherited. Threads: any."""

    def __init__(self, idle_max: int) -> None:
        """Keep so many idle ones."""
        self.pid: Final = os.getpid()
        self._idle_max: Final = idle_max
        self._lock: Final = threading.Lock()
        self._idle: Final[list[Connection]] = []
        self._all: Final[set[Connection]] = set()
        self._is_closed = False

    @property
    def used_count(self) -> int:
        """How many are in use at the moment."""
        return len(self._all) - len(self._idle)

    @contextmanager
    def one(self, make: Callable[[], Connection]) -> Iterator[Connection]:
        """Give a connection for one question; the body has heard its whole answer, or raises.

        After an exception the connection is closed: what it would carry next belongs to nobody.
        """
        connection = self._take() or self._add(make())
        try:
            yield connection
        except BaseException:
            self._drop(connection)
            raise
        self._give_back(connection)

    def close(self) -> None:
        """End all connections; who waits on one has an OSError."""
        with self._lock:
            self._is_closed = True
            idle, self._idle[:] = list(self._idle), []
            for connection in self._all:
                connection.end()
        for connection in idle:
            self._drop(connection)

    def abandon(self) -> None:
        """Close what a fork has inherited, without a word to the peer. Only in the child."""
        for connection in self._all:
            connection.close()

    def _take(self) -> Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.is_usable():
                return connection
            self._drop(connection)

    def _add(self, connection: Connection) -> Connection:
        with self._lock:
            if not self._is_closed:
                self._all.add(connection)
                return connection
        connection.end()
        connection.close()
        raise Closed("the link to the peer was closed")

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if not self._is_closed and len(self._idle) < self._idle_max:
                self._idle.append(connection)
                return
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._all.discard(connection)
        connection.end()
        connection.close()
