"""A member as a process: gRPC and the data port over a cache directory, from its start to its end.

It opens the cache as any other process does. It is ready when it can be asked; told to end, it says so to the
others first, gives up its keys, hands over what is hot, and finishes what is under way. Told to restart, it
only finishes that: for the others it is silent for a moment, in which nothing moves.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from forebay.cache import Cache
from forebay.clock import BootClock
from forebay.config import BLOCK_BYTES_DEFAULT
from forebay.errors import ConfigError
from forebay.peer.answer import Answerer
from forebay.peer.data.port import start_where_it_was
from forebay.peer.data.server import DataServer
from forebay.peer.group import Group
from forebay.peer.handshake import Terms
from forebay.peer.identity import MemberLock
from forebay.peer.limits import ServerLimits
from forebay.peer.member import Member, View
from forebay.peer.membership import Membership, Rules
from forebay.peer.prober import Prober
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.proto import forebay_pb2_grpc as pb_grpc
from forebay.peer.record import ServingRecord
from forebay.peer.replicas.hand_over import HandOver
from forebay.peer.replicas.pushing import ReplicaLimits
from forebay.peer.replicas.replicator import Reach, Replicator
from forebay.peer.replicas.served import NotedServing, ServedBlocks
from forebay.peer.security.interceptor import PermissionInterceptor, current_caller
from forebay.peer.security.options import SecurityOptions
from forebay.peer.service.admin import AdminService
from forebay.peer.service.blocks import BlocksService
from forebay.peer.service.reads import ReadService
from forebay.peer.service.register import add_peer_service
from forebay.peer.service.threads import ServiceThreads
from forebay.peer.settings.book import Book
from forebay.peer.settings.exchange import SettingsExchange
from forebay.peer.settings.keeper import SettingsKeeper
from forebay.peer.settings.local import LocalSettings

_log = logging.getLogger(__name__)

READY: Final = ""
ALIVE: Final = "alive"
_SERVICES: Final = tuple(
    pb.DESCRIPTOR.services_by_name[name].full_name for name in pb.DESCRIPTOR.services_by_name
)
_ANY_HOST: Final = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How a cache directory is served.

    listen: HOST:PORT of gRPC, port 0 for a free one. advertise: what others are to connect to, None: the
    same. data_port: that of blocks, 0 for that of the last start, or else a free one, None for none. peers:
    some members of the group, HOST:PORT or names that stand for many. weight: its part of the data, beside
    others'. zone: what fails together. gateway_port: where this process serves WebHDFS at the same host,
    which others are told; 0: not.
    """

    group: str
    listen: str
    advertise: str | None = None
    data_port: int | None = 0
    peers: tuple[str, ...] = ()
    weight: float = 1.0
    zone: str = ""
    gateway_port: int = 0
    security: SecurityOptions = field(default_factory=SecurityOptions)
    limits: ServerLimits = field(default_factory=ServerLimits)
    rules: Rules = field(default_factory=Rules)
    replicas: ReplicaLimits = field(default_factory=ReplicaLimits)


class PeerServer:
    """Serves one cache directory as a member of a group. For one event loop; ``stop`` from any thread."""

    def __init__(
        self, cache_dir: str, tiers: Any, cache_options: Mapping[str, Any], options: ServeOptions
    ) -> None:
        """Open the cache and become its member. Raises: ConfigError (what cannot be so, and where)."""
        self._options: Final = options
        self._addresses: Final = options.security.resolve_listen(options.listen)
        self._group: Final = Group(
            options.group,
            options.peers,
            "member",
            cache_dir,
            options.security,
            block_bytes=cache_options.get("block_bytes", BLOCK_BYTES_DEFAULT),
        )
        self.cache: Final = Cache(cache_dir, tiers, **{**cache_options, "remote": self._group})
        try:
            self._lock: Final = MemberLock(self.cache.path)
            self._serving: Final = self.cache.serving(self._group.owner_side())
            self._book: Final = Book(self.cache.settings_folder, self._lock.member_id)
        except BaseException:
            self.cache.close()
            raise
        self._served: Final = ServedBlocks()
        self._replicator: Final = Replicator(
            self._serving.replicated,
            self._serving.hit,
            self._reach,
            self._serving.block_bytes,
            options.replicas,
        )
        self._terms: Final = Terms(options.group, self._serving.block_bytes)
        self._permissions: Final = options.security.permissions()
        self._credentials: Final = options.security.credentials()
        self._stopping: Final = asyncio.Event()
        self._leaves = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._membership: Membership | None = None
        self.address = ""
        self.data_port = 0

    @property
    def member_id(self) -> str:
        """The id of the member that the cache directory is."""
        return self._lock.member_id

    @property
    def gateway(self) -> str:
        """HOST:PORT of its gateway as others are told, "" without one; good once it serves."""
        return self._own().gateway

    @property
    def view(self) -> View:
        """The members as this one sees them; good once it serves."""
        assert self._membership is not None
        return self._membership.view

    def stop(self, *, leave: bool = True) -> None:
        """Ask it to end, from any thread; leave: and not to be back in a moment."""
        self._leaves = leave
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def run(
        self, on_ready: Callable[[PeerServer], None], on_end: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Serve until ``stop``; on_ready is called when it can be asked, on_end before the cache is closed.

        Raises: OSError (a port is taken).
        """
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.callback(self._lock.close)
            threads = ServiceThreads(self._options.limits)
            stack.callback(threads.close)
            self._loop.set_default_executor(threads.questions)
            stack.callback(self.cache.close)
            if on_end is not None:
                stack.push_async_callback(on_end)
            server = grpc.aio.server(
                interceptors=[PermissionInterceptor(self._permissions)],
                options=self._options.limits.grpc_options(),
                maximum_concurrent_rpcs=self._options.limits.calls,
            )
            self._bind(server)
            answerer = Answerer(
                NotedServing(self._serving, self._served, self._serving.block_bytes),
                self._permissions,
                lambda: self.view.to_message().SerializeToString(),
            )
            data = DataServer(answerer, self._welcome, tls=self._tls_of_data())
            if self._options.data_port is not None:
                self.data_port = self._start_data(data, self._options.data_port)
            stack.callback(data.close)
            membership = self._membership = Membership(
                self._me(), self._options.group, (), clock=BootClock(), rules=self._options.rules
            )
            prober = Prober(
                membership,
                self._terms,
                self.member_id,
                self._options.peers,
                self._credentials,
                self._group.take_view,
            )
            stack.push_async_callback(prober.close)
            exchange = SettingsExchange(LocalSettings(self.cache), self._book)
            keeper = SettingsKeeper(exchange, self._others)
            states = self._add_services(server, answerer, exchange, threads)
            await server.start()
            stack.push_async_callback(server.stop, 0)
            prober.show()
            probing = self._loop.create_task(prober.run())
            keeper.start()
            self._replicator.start()
            try:
                await states.set(ALIVE, health_pb2.HealthCheckResponse.SERVING)
                for name in (READY, *_SERVICES):
                    await states.set(name, health_pb2.HealthCheckResponse.SERVING)
                record = ServingRecord(self.cache.path, self._group_status)
                stack.callback(record.close)
                on_ready(self)
                await self._stopping.wait()
            finally:
                for name in (READY, *_SERVICES):
                    await states.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
                probing.cancel()
                if self._leaves:
                    await prober.leave()
                await self._finish(keeper, data, answerer, threads.ending)
                await server.stop(self._options.limits.grace_s)

    async def _finish(
        self, keeper: SettingsKeeper, data: DataServer, answerer: Answerer, threads: Executor
    ) -> None:
        """Stop what goes on by itself, hand over what is hot, and let what is under way end."""
        run = partial(asyncio.get_running_loop().run_in_executor, threads)
        await run(keeper.stop)
        await run(self._replicator.stop)
        if self._leaves:
            try:
                await run(self._hand_over)
            except Exception:  # noqa: BLE001  (what is under way is to end in order all the same)
                _log.exception("hot blocks could not be handed over")
        data.stop_listening()
        await run(answerer.drain, self._options.limits.grace_s)

    def _me(self) -> Member:
        host, _, port = self.address.rpartition(":")
        advertised = self._options.advertise
        if advertised is None:
            is_any = self._addresses[0].host in _ANY_HOST
            advertised = f"{socket.gethostname() if is_any else host}:{port}"
        return Member(
            id=self.member_id,
            address=advertised,
            data_port=self.data_port,
            weight=self._options.weight,
            zone=self._options.zone,
            incarnation=self._lock.incarnation,
            host=socket.gethostname(),
            gateway_port=self._options.gateway_port,
        )

    def _bind(self, server: grpc.aio.Server) -> None:
        tls = self._options.security.server_tls()
        self._server_tls = tls
        for address in self._addresses:
            text = str(address._replace(port=address.port or self._bound_port()))
            try:
                port = (
                    server.add_insecure_port(text)
                    if tls is None
                    else server.add_secure_port(text, tls.grpc_credentials())
                )
            except RuntimeError as error:
                raise OSError(errno.EADDRINUSE, "cannot be listened on: it is in use", text) from error
            if port == 0:
                raise OSError(errno.EADDRINUSE, "cannot be listened on", text)
            if not self.address:
                self.address = str(address._replace(port=port))

    def _start_data(self, data: DataServer, port: int) -> int:
        host = self._addresses[0].host
        return data.start(host, port) if port else start_where_it_was(data, host, self.cache.path)

    def _bound_port(self) -> int:
        return int(self.address.rpartition(":")[2]) if self.address else 0

    def _tls_of_data(self) -> Callable[[], Any] | None:
        tls = self._server_tls
        return None if tls is None else lambda: tls.ssl_context

    def _welcome(self, raw: bytes, token: str | None, address: str) -> tuple[bytes, Any]:
        """Answer the first frame of a connection to the data port."""
        try:
            request = pb.HelloRequest.FromString(raw)
        except DecodeError as error:
            raise ConfigError(f"the greeting is no HelloRequest: {error}") from error
        caller = self._permissions.authenticate("HELLO", token, address)
        self._permissions.check_request("HELLO", caller, request)
        self._terms.check(request)
        return self._terms.reply(self._own(), self.view).SerializeToString(), caller

    def _own(self) -> Member:
        return next(member for member in self.view.members if member.id == self.member_id)

    def _add_services(
        self,
        server: grpc.aio.Server,
        answerer: Answerer,
        exchange: SettingsExchange,
        threads: ServiceThreads,
    ) -> health.aio.HealthServicer:
        reads = ReadService(self._serving, self._terms, self._own, lambda: self.view)
        add_peer_service(server, reads, BlocksService(answerer, current_caller, threads.streams))
        admin = AdminService(
            self.cache, self._permissions, exchange, self.status, self._announced, threads.work
        )
        pb_grpc.add_AdminServicer_to_server(admin, server)
        states = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(states, server)
        names = (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        return states

    def _announced(self, member: Member) -> View:
        assert self._membership is not None
        self._membership.announced(member)
        return self._membership.view

    def status(self) -> dict[str, Any]:
        """Return the status of the cache, and of the group as this member sees it; fit for JSON."""
        return {**self.cache.status(), "group": self._group_status()}

    def _group_status(self) -> dict[str, Any]:
        assert self._membership is not None
        return {
            **self._group.status(),
            "refused": dict(self._membership.refusals),
            "replicas": self._replicator.status(),
        }

    def _reach(self) -> Reach | None:
        ring = self._group.ring
        if ring is None:
            return None
        stubs = {each.id: each.peer for each in self._group.admins() if each.id != self.member_id}
        return Reach(ring, self.member_id, stubs)

    def _hand_over(self) -> None:
        """Give what is hot to those who own it now; the others ask for the rest while this member answers."""
        reach = self._reach()
        if reach is None or not reach.stubs:
            return
        serving = self._serving
        limits = self._options.replicas
        hand_over = HandOver(serving.replicated, serving.hit, reach, serving.block_bytes, limits)
        pushed = hand_over.run(self._served)
        _log.info("%d hot blocks of %d bytes were handed over", pushed.blocks, pushed.size_bytes)

    def _others(self) -> list[tuple[str, Any]]:
        return [(member.name, member.admin) for member in self._group.admins() if member.id != self.member_id]
