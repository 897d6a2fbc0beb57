"""The gateway's server: uvicorn, with the bounds that it lacks, and without its hold of signals."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import nullcontext
from typing import Any, Final

import uvicorn

from forebay.api.webhdfs.app import Gateway
from forebay.api.webhdfs.protocol import protocol_of

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
