"""A real server of gRPC with all services of the protocol behind the interceptor, answered by a double."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.proto import forebay_pb2_grpc as pb_grpc
from forebay.peer.security.interceptor import PermissionInterceptor, current_caller
from forebay.peer.security.permissions import Permissions
from forebay.peer.security.tls import ServerTls

TIMEOUT_S = 30
MESSAGE_BYTES_MAX = 4 << 20


class Answers:
    """Answers every call with as little as there is, and counts the calls that were let in."""

    def __init__(self) -> None:
        self.let_in: list[tuple[str, str]] = []

    def _note(self, name: str) -> None:
        self.let_in.append((name, str(current_caller())))

    def one(self, name: str, reply: type) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            self._note(name)
            return reply()

        return answer

    def many(self, name: str, reply: type) -> Any:
        async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
            self._note(name)
            yield reply()

        return answer

    def stream_to_one(self, name: str, reply: type) -> Any:
        async def answer(requests: Any, context: Any) -> Any:
            self._note(name)
            async for _ in requests:
                pass
            return reply()

        return answer

    def stream(self, name: str, reply: type) -> Any:
        async def answer(requests: Any, context: Any) -> AsyncIterator[Any]:
            self._note(name)
            async for _ in requests:
                yield reply()

        return answer


def servicers(answers: Answers) -> tuple[Any, Any]:
    """Return one object for each service, with all its calls."""
    peer, admin = pb_grpc.PeerServicer(), pb_grpc.AdminServicer()
    for servicer, service in ((peer, "Peer"), (admin, "Admin")):
        for method in pb.DESCRIPTOR.services_by_name[service].methods:
            kind = {
                (False, False): answers.one,
                (False, True): answers.many,
                (True, False): answers.stream_to_one,
                (True, True): answers.stream,
            }[method.client_streaming, method.server_streaming]
            setattr(servicer, method.name, kind(method.name, getattr(pb, method.output_type.name)))
    return peer, admin


class PeerServer:
    """The server, on a port of loopback, in a thread with a loop of its own."""

    def __init__(self, permissions: Permissions, tls: ServerTls | None = None) -> None:
        """Start it."""
        self.answers = Answers()
        self.port = 0
        self._permissions, self._tls = permissions, tls
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._started.wait(TIMEOUT_S)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop it, with the calls under way."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX), ("grpc.so_reuseport", 0)]
        server = grpc.aio.server(interceptors=[PermissionInterceptor(self._permissions)], options=options)
        peer, admin = servicers(self.answers)
        pb_grpc.add_PeerServicer_to_server(peer, server)
        pb_grpc.add_AdminServicer_to_server(admin, server)
        probes = health.aio.HealthServicer()
        await probes.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(probes, server)
        reflection.enable_server_reflection(["forebay.v1.Peer", reflection.SERVICE_NAME], server)
        if self._tls is None:
            self.port = server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = server.add_secure_port("127.0.0.1:0", self._tls.grpc_credentials())
        await server.start()
        self._started.set()
        await self._end.wait()
        await server.stop(None)


def ask(channel: grpc.Channel, method: str, *requests: bytes, metadata: Any = ()) -> list[bytes]:
    """Make one call with these bytes as its messages, and return those of the answer.

    Raises: grpc.RpcError.
    """
    call = channel.stream_stream(method)(iter(requests), metadata=metadata, timeout=TIMEOUT_S)
    return list(call)
