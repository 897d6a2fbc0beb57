"""A member's answering side without a cache below it, for the tests of transport; as a script a server.

python _peer_answering.py: serves content() on the data port and over gRPC, prints both ports on a line, and
ends when standard input does.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from forebay.errors import NotAttached, forbidden, not_found, stale
from forebay.peer.answer import Answerer, AnswerLimits, Hit
from forebay.peer.data.client import PeerLink
from forebay.peer.data.connection import Greeting
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.server import DataLimits, DataServer
from forebay.peer.service.blocks import BlocksService
from forebay.remote import BlockRequest, RemoteObject
from forebay.store import View

BLOCK_BYTES = 3 << 20
PATIENT = Deadline(30.0)
HELLO = b"hello"


def content(number: int, length: int = BLOCK_BYTES) -> bytes:
    """Return what block number of the file holds."""
    seed = hashlib.sha256(str(number).encode()).digest()
    return (seed * (length // len(seed) + 1))[:length]


def block(number: int, length: int = BLOCK_BYTES, path: str = "hit") -> BlockRequest:
    """Return a request; what its path begins with says what becomes of it."""
    return BlockRequest("d", path, "v1", number, number * length, length)


def room(requests: Sequence[BlockRequest]) -> list[memoryview]:
    """Return buffers for these."""
    return [memoryview(bytearray(request.length)) for request in requests]


class FakeServing:
    """Has blocks of any length whose path begins with ``hit``; brings the others, or fails as they say."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.brought: list[int] = []
        self.length = BLOCK_BYTES

    def hits(self, blocks: Sequence[tuple[str, str, str, int]]) -> Iterator[Hit | None]:
        for _, path, _, number in blocks:
            yield View.wrap(content(number, self.length)) if path.startswith("hit") else None

    def bring(
        self, dataset: str, path: str, version: str, number: int, on_piece: Callable[[memoryview], None]
    ) -> None:
        self._fail(dataset, path, version)
        self.brought.append(number)
        if path.endswith("empty"):
            return
        data = memoryview(content(number, self.length))
        on_piece(data[:1000])
        self.go_on.wait()
        on_piece(data[1000 : -1 if path.startswith("short") else None])
        if path.startswith("long"):
            on_piece(data[:1])

    def touch(
        self, dataset: str, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, Hit | memoryview]:
        self._fail(dataset, path, "v1")
        return self.stat(dataset, path), View.wrap(content(0, self.length)[offset : offset + length])

    def stat(self, dataset: str, path: str) -> RemoteObject:
        self.go_on.wait()
        self._fail(dataset, path, "v1")
        return RemoteObject(path, self.length, -5, "v1", False, 7)

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]]:
        self._fail(dataset, directory, "v1")
        names = [f"{directory}/{number:05}" for number in range(0 if directory == "empty" else 30_000)]
        return iter([[RemoteObject(name, 1, 2, "v", False, 3) for name in names]] if names else [])

    def _fail(self, dataset: str, path: str, version: str) -> None:
        failures: dict[str, Exception] = {
            "absent": not_found(path),
            "secret": forbidden(path, "AccessDenied"),
            "changed": stale(path, version, "v2"),
            "broken": OSError(5, "the source is broken"),
            "unforeseen": OverflowError("int too large to convert"),
        }
        if dataset != "d":
            raise NotAttached(f"{dataset}: no such dataset")
        if (failure := failures.get(path)) is not None:
            raise failure


class Permissions:
    """Lets everybody do all but one thing."""

    def check(self, what: str, caller: Any, dataset: str | None = None, path: str = "") -> None:
        if path == "not-yours":
            raise PermissionError(13, "permission denied")


def welcome(hello: bytes, token: str | None, address: str) -> tuple[bytes, Any]:
    """Answer a greeting; refuse other groups and tokens."""
    if hello != HELLO:
        raise ValueError(f"another group: {hello.decode()}")
    if token == "bad":
        raise PermissionError(13, "not authenticated")
    return b"welcome", address


class Member:
    """A data port over a fake; a context manager."""

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        limits: DataLimits = DataLimits(),  # noqa: B008  (frozen)
        answer_limits: AnswerLimits = AnswerLimits(),  # noqa: B008  (frozen)
    ) -> None:
        self.serving = FakeServing()
        self.answerer = Answerer(self.serving, Permissions(), lambda: b"view", answer_limits)
        context = None if tls is None else lambda: tls
        self.server = DataServer(self.answerer, welcome, tls=context, limits=limits)
        self.port = self.server.start("127.0.0.1")

    def __enter__(self) -> Member:
        return self

    def __exit__(self, *exception: object) -> None:
        self.serving.go_on.set()
        self.server.close()
        self.answerer.close()


def greeting(hello: bytes = HELLO, token: str | None = None) -> Greeting:
    """Return a greeting that holds the answer to what it should be."""

    def check(reply: bytes) -> None:
        if reply != b"welcome":
            raise ValueError(f"greeted with {reply!r}")

    return Greeting(lambda: hello, lambda: token, check)


def link_to(port: int, **options: Any) -> PeerLink:
    """Return a link to a port of this machine."""
    return PeerLink(("127.0.0.1", port), options.pop("greeting", greeting()), **options)


async def serve_grpc(answerer: Answerer) -> tuple[grpc.aio.Server, int]:
    """Start a gRPC server with the stream alone."""
    server = grpc.aio.server()
    service = BlocksService(answerer, lambda: None)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("forebay.v1.Peer", {"Blocks": service.handler()}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def main() -> None:
    """Serve until standard input ends."""
    with Member() as member:
        server, port = await serve_grpc(member.answerer)
        print(member.port, port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main())
