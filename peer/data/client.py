"""Asks one peer over its data port.

A call uses a connection of its own for as long as it lasts, so that nothing goes from thread to thread; a
batch of blocks is one question. Works in forked children, each with connections of its own.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from forebay.peer.data.connection import Connection, Greeting
from forebay.peer.data.connections import Connections
from forebay.peer.data.deadline import Watch
from forebay.peer.data.dial import connect
from forebay.peer.data.errors import down
from forebay.peer.data.link import Link
from forebay.peer.frames import FrameError

_IDLE_MAX: Final = 16


class PeerLink(Link):
    """A link over sockets; survives fork, and is not to be pickled. Threads: any."""

    def __init__(
        self,
        address: tuple[str, int],
        greeting: Greeting,
        *,
        tls: Callable[[], ssl.SSLContext] | None = None,
        server_name: str | None = None,
    ) -> None:
        """Ask the data port at the address; connections are made when they are needed.

        tls gives the context for a new connection, server_name what its certificate says instead of the host.
        """
        super().__init__(f"{address[0]}:{address[1]}")
        self._target: Final = address
        self._greeting: Final = greeting
        self._tls: Final = tls
        self._server_name: Final = server_name
        self._pool = Connections(_IDLE_MAX)

    @property
    def in_flight(self) -> int:
        """How many questions this process has under way."""
        return self._connections().used_count

    def close(self) -> None:
        """End this process's connections; may be called twice."""
        self._connections().close()

    @contextmanager
    def _connection(self, watch: Watch) -> Iterator[Connection]:
        """Give a connection; what cannot be understood on it is PeerDown."""
        try:
            with self._connections().one(lambda: self._connect(watch)) as connection:
                yield connection
        except FrameError as error:
            raise down(self.address, error) from error

    def _connect(self, watch: Watch) -> Connection:
        try:
            context = None if self._tls is None else self._tls()
            wire = connect(self._target, watch, context, self._server_name)
        except (OSError, ValueError) as error:  # a name that nothing can be called is a ValueError
            raise down(self.address, error) from error
        connection = Connection(wire, self.address)
        try:
            connection.greet(self._greeting, watch)
        except BaseException:
            connection.end()
            connection.close()
            raise
        return connection

    def _connections(self) -> Connections:
        """Return this process's own: after a fork, those of the parent are closed here."""
        pool = self._pool
        if pool.pid != os.getpid():
            pool.abandon()
            pool = self._pool = Connections(_IDLE_MAX)
        return pool
