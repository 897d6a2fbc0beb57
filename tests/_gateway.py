"""A WebHDFS gateway in a thread of the test's process, and requests to it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from forebay.api.webhdfs.app import Gateway
from forebay.api.webhdfs.guard import Guard
from forebay.api.webhdfs.limits import GatewayLimits
from forebay.api.webhdfs.query import PREFIX
from forebay.api.webhdfs.server import GatewayServer
from forebay.cache import Cache

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What the gateway has answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body's JSON."""
        return json.loads(self.body)

    @property
    def exception(self) -> str:
        """The name of the exception that it tells of."""
        name = self.json["RemoteException"]["exception"]
        assert self.json["RemoteException"]["javaClassName"].endswith(f".{name}")
        return str(name)


@dataclass(frozen=True)
class Served:
    """A gateway that serves."""

    port: int
    context: ssl.SSLContext | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        """What clients are told."""
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send one request as it is, path and query encoded, and follow no redirect."""
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
            if self.context is None
            else http.client.HTTPSConnection("localhost", self.port, timeout=TIMEOUT_S, context=self.context)
        )
        try:
            sent = dict(headers or {})
            connection.putrequest(
                method, PREFIX.decode() + path, skip_host="Host" in sent, skip_accept_encoding=True
            )
            if body is not None or method in ("PUT", "POST"):
                sent.setdefault("Content-Length", str(len(body or b"")))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        """Send a GET."""
        return self.ask("GET", path)

    def put(self, path: str, data: bytes) -> Answer:
        """Write a file in its two steps."""
        return self._twice("PUT", f"{path}{'&' if '?' in path else '?'}op=CREATE", data)

    def append(self, path: str, data: bytes) -> Answer:
        """Append to a file in its two steps."""
        return self._twice("POST", f"{path}?op=APPEND", data)

    def _twice(self, method: str, path: str, data: bytes) -> Answer:
        first = self.ask(method, path)
        if first.status != 307:
            return first
        location = first.headers["location"]
        assert "?" in location
        return self.ask(method, location.partition(PREFIX.decode())[2], data)


@contextmanager
def serving(
    cache: Cache,
    *,
    guard: Guard | None = None,
    limits: GatewayLimits | None = None,
    own: str = "",
    tls: ssl.SSLContext | None = None,
    context: ssl.SSLContext | None = None,
) -> Iterator[Served]:
    """Serve a cache by a gateway until the end; context is what clients connect with, if it has TLS."""
    bound = socket.create_server(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    ready = threading.Event()
    held: dict[str, Any] = {}

    async def run() -> None:
        server = GatewayServer(Gateway(cache, guard, limits, own), bound, tls)
        held["loop"], held["server"] = asyncio.get_running_loop(), server
        serving = asyncio.create_task(server.run())
        await server.started()
        ready.set()
        await serving

    thread = threading.Thread(target=asyncio.run, args=(run(),), name="gateway")
    thread.start()
    try:
        assert ready.wait(TIMEOUT_S)
        yield Served(port, context)
    finally:
        held["loop"].call_soon_threadsafe(held["server"].stop)
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
