"""The gateway's server: uvicorn, with what it lacks: an end to requests whose heads never do."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import nullcontext
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from forebay.api.webhdfs.app import Gateway
from forebay.api.webhdfs.limits import GatewayLimits

_GRACE_S: Final = 10


class GatewayServer:
    """Serves a gateway on a socket, in the event loop that it runs in."""

    def __init__(self, gateway: Gateway, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Serve on a socket that is bound, which is closed at the end; with TLS if that is given."""
        self._gateway: Final = gateway
        self._listening: Final = listening
        limits = gateway.limits
        config = uvicorn.Config(
            gateway,
            http=protocol_of(limits),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=limits.idle_s,
            timeout_graceful_shutdown=_GRACE_S,
        )
        config.load()
        config.ssl = tls
        self._server: Final = _Server(config)

    async def run(self) -> None:
        """Serve until ``stop``, and then until requests under way are done, for ten seconds at most."""
        try:
            await self._server.serve([self._listening])
        finally:
            await asyncio.to_thread(self._gateway.close)

    async def started(self) -> None:
        """Wait until it accepts connections."""
        await self._server.is_up.wait()

    def stop(self) -> None:
        """Ask it to end; from its own loop."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up: Final = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    def capture_signals(self) -> Any:
        """Leave signals to the program."""
        return nullcontext()


def protocol_of(limits: GatewayLimits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with bounds for the heads of requests, and for connections."""

    class Bounded(HttpToolsProtocol):
        _head_bytes = 0
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.abort()
                return
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self._head_timer is None or self.transport.is_closing():
                return
            # All of it was of a head that is not at its end.
            self._head_bytes += len(data)
            if self._head_bytes > limits.head_bytes:
                self.send_400_response("The head of the request is too long.")

        def on_message_begin(self) -> None:
            if self._head_timer is None:
                self._await_head()
            super().on_message_begin()

        def on_headers_complete(self) -> None:
            self._forget_timer()
            super().on_headers_complete()

        def _await_head(self) -> None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(limits.head_s, self._give_up)

        def _give_up(self) -> None:
            self._head_timer = None
            if not self.transport.is_closing():
                self.transport.abort()

        def _forget_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return Bounded
