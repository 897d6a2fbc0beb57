"""Drives the membership of one member: probes who is due, tells others of it, looks names up again.

It runs in the server's event loop, and the membership with it, so that needs no lock. A probe is a handshake:
whoever answers says who he is and whom he sees.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple

import grpc

from forebay.errors import ConfigError
from forebay.peer.failures import Failures
from forebay.peer.handshake import Terms
from forebay.peer.member import Member, View
from forebay.peer.membership import Answer, Membership
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.proto import forebay_pb2_grpc as pb_grpc
from forebay.peer.security.credentials import Credentials
from forebay.peer.seeds import Seeds
from forebay.peer.stubs import CHANNEL_OPTIONS

_log = logging.getLogger(__name__)

TICK_S: Final = 0.2
PROBE_TIMEOUT_S: Final = 1.0
_LEAVE_TIMEOUT_S: Final = 2.0
LOOK_UP_EVERY_S: Final = 10.0


class _Call(NamedTuple):
    """A call under way: what for, and where."""

    what: str
    address: str


class Prober:
    """Probes for one membership. For one event loop."""

    def __init__(
        self,
        membership: Membership,
        terms: Terms,
        member_id: str,
        seeds: Sequence[str],
        credentials: Credentials,
        on_view: Callable[[View], None],
    ) -> None:
        """Probe seeds, HOST:PORT each, and who is heard of; on_view is called with each new view."""
        self._membership: Final = membership
        self._hello: Final = terms.request("member", member_id)
        self._terms: Final = terms
        self._seeds: Final = Seeds(seeds)
        self._credentials: Final = credentials
        self._on_view: Final = on_view
        self._channels: Final[dict[str, grpc.aio.Channel]] = {}
        self._calls: Final[dict[_Call, asyncio.Task[None]]] = {}
        self._told: View | None = None
        self._looking_up: asyncio.Task[None] | None = None
        self._look_up_due_s = 0.0
        # Why an address is none of the group, as it was logged last.
        self._said: Final[dict[str, str]] = {}
        self._failures: Final = Failures(_log, "the group could not be probed; it is in a moment")

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while True:
                await self._guarded(self._turn())
                await asyncio.sleep(TICK_S)
        finally:
            for task in (*self._calls.values(), self._looking_up):
                if task is not None:
                    task.cancel()

    async def leave(self) -> None:
        """Tell all members that this one leaves, those that answer in time."""
        request = pb.Announcement(member=self._membership.leave().to_message())
        self.show()
        others = [member for member in self._membership.view.members if member.id != self._hello.member_id]
        await asyncio.gather(*(self._guarded(self._announce(member.address, request)) for member in others))

    async def close(self) -> None:
        """Close the connections."""
        while self._channels:
            _, channel = self._channels.popitem()
            await channel.close()

    def show(self) -> None:
        """Tell of the view if it is another one."""
        view = self._membership.view
        if view is not self._told:
            self._on_view(view)
            self._told = view

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        is_looking_up = self._looking_up is not None and not self._looking_up.done()
        if loop.time() >= self._look_up_due_s and not is_looking_up:
            # Beside the probes: a DNS that does not answer holds up none of them.
            self._look_up_due_s = loop.time() + LOOK_UP_EVERY_S
            self._looking_up = loop.create_task(self._guarded(self._look_seeds_up()))
        self._begin_due()
        self.show()
        await self._forget_gone()

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do some work; whatever is wrong with it ends neither the probing nor this member."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  (a member that probes no more is blind, and does not know it)
            self._failures.tell(error)

    def _begin_due(self) -> None:
        for address in self._membership.due():
            self._begin(_Call("probe", address), self._probe(address))
        message = pb.Announcement(member=self._me().to_message())
        for address in self._membership.unaware():
            self._begin(_Call("announce", address), self._announce(address, message))

    def _begin(self, call: _Call, work: Coroutine[Any, Any, None]) -> None:
        if call in self._calls:
            work.close()
            return
        self._calls[call] = task = asyncio.get_running_loop().create_task(self._guarded(work))
        task.add_done_callback(lambda _: self._calls.pop(call, None))

    async def _forget_gone(self) -> None:
        """Close the channels to addresses that are probed no more, and forget what was said of them."""
        kept = self._membership.addresses
        for address in self._said.keys() - kept:
            del self._said[address]
        busy = {call.address for call in self._calls}
        for address in self._channels.keys() - kept - busy:
            await self._channels.pop(address).close()

    async def _probe(self, address: str) -> None:
        try:
            await self._greet(address)
        except Exception:
            self._membership.no_answer(address)
            raise
        finally:
            self.show()

    async def _greet(self, address: str) -> None:
        try:
            reply = await self._peer(address).Hello(self._hello, timeout=PROBE_TIMEOUT_S)
            self._terms.check(reply)
            self._membership.answered(address, _answer(reply))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                self._refused(address, error.details() or "")
            elif error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                self._refused(address, f"it does not let this member in: {error.details()}")
            elif error.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._refused(address, "another service answers there")
            else:
                self._membership.no_answer(address)
        except ConfigError as error:
            self._refused(address, str(error))

    def _refused(self, address: str, reason: str) -> None:
        if self._said.get(address) != reason:
            self._said[address] = reason
            _log.warning("peer %s is none of this group: %s", address, reason)
        self._membership.refused(address, reason)

    async def _announce(self, address: str, message: pb.Announcement) -> None:
        try:
            admin = pb_grpc.AdminStub(self._channel(address))
            await admin.Announce(message, timeout=_LEAVE_TIMEOUT_S)
        except (grpc.aio.AioRpcError, ConfigError):
            pass  # who does not hear it finds out by probing

    def _me(self) -> Member:
        return next(m for m in self._membership.view.members if m.id == self._hello.member_id)

    def _peer(self, address: str) -> Any:
        return pb_grpc.PeerStub(self._channel(address))

    def _channel(self, address: str) -> grpc.aio.Channel:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._credentials.open_aio_channel(address, CHANNEL_OPTIONS)
            self._channels[address] = channel
        return channel

    async def _look_seeds_up(self) -> None:
        self._membership.seed(await self._seeds.look_up())


def _answer(reply: pb.HelloReply) -> Answer:
    return Answer(reply.group, Member.from_message(reply.self), View.from_message(reply.view))
