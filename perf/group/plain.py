"""What moves the same bytes without a cache: a plain TCP server that sends by sendfile, and a gRPC server.

Both are processes of their own, as a member is one.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

_SPAN = struct.Struct("<QQ")
METHOD = "/perf.Plain/Get"
READY_TIMEOUT_S = 30.0
MESSAGE_BYTES_MAX = 8 << 20


class PlainTcp:
    """A connection to a server that answers a span of a file with its bytes."""

    def __init__(self, port: int, pid: int) -> None:
        self.pid = pid
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, offsets: Sequence[int], buffers: Sequence[memoryview]) -> None:
        """Ask for all of it by one message; fill the buffers in order."""
        self._socket.sendall(
            b"".join(_SPAN.pack(offset, len(buffer)) for offset, buffer in zip(offsets, buffers, strict=True))
        )
        for buffer in buffers:
            got = 0
            while got < len(buffer):
                if not (count := self._socket.recv_into(buffer[got:])):
                    raise ConnectionError("the plain server is gone")
                got += count

    def close(self) -> None:
        self._socket.close()


@contextmanager
def plain_tcp(path: Path) -> Iterator[PlainTcp]:
    """Serve a file by plain TCP in another process, and connect to it."""
    with _serving(_serve_tcp, path) as (port, pid):
        connection = PlainTcp(port, pid)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def unary_grpc(path: Path) -> Iterator[Callable[[int, int], bytes]]:
    """Serve a file by unary gRPC calls in another process; gives what makes one call."""
    import grpc

    with _serving(_serve_grpc, path) as (port, _):
        options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            call = channel.unary_unary(METHOD)
            yield lambda offset, length: call(_SPAN.pack(offset, length))


@contextmanager
def _serving(body: Callable[[Path, Connection], None], path: Path) -> Iterator[tuple[int, int]]:
    """Run a server in a fresh process; gives its port and process id."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=body, args=(path, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(READY_TIMEOUT_S):
            raise TimeoutError("the plain server was not ready in time")
        assert process.pid is not None
        yield ours.recv(), process.pid
    finally:
        process.kill()
        process.join()
        ours.close()


def _serve_tcp(path: Path, pipe: Connection) -> None:
    file = os.open(path, os.O_RDONLY)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        pipe.send(listening.getsockname()[1])
        connection, _ = listening.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    asked = connection.makefile("rb")
    while span := asked.read(_SPAN.size):
        offset, length = _SPAN.unpack(span)
        end = offset + length
        while offset < end:
            offset += os.sendfile(connection.fileno(), file, offset, end - offset)


def _serve_grpc(path: Path, pipe: Connection) -> None:
    import grpc

    file = os.open(path, os.O_RDONLY)

    def answer(request: bytes, _: object) -> bytes:
        offset, length = _SPAN.unpack(request)
        return os.pread(file, length, offset)

    service, _, name = METHOD.removeprefix("/").partition("/")
    handler = grpc.method_handlers_generic_handler(
        service, {name: grpc.unary_unary_rpc_method_handler(answer)}
    )
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_send_message_length", MESSAGE_BYTES_MAX)])
    server.add_generic_rpc_handlers((handler,))
    pipe.send(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()
