"""Drives the membership of one member: probes who is due, tells others of it, looks names up again.

It runs in the server's event loop, and the membership with it, so that needs no lock. A probe is a handshake:
whoever answers says who he is and whom he sees.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import grpc

from forebay.errors import ConfigError
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
        self._probes: Final[dict[str, asyncio.Task[None]]] = {}
        self._told: View | None = None
        self._looking_up: asyncio.Task[None] | None = None
        self._look_up_due_s = 0.0
        self._said: Final[set[str]] = set()

    async def run(self) -> None:
        """Probe until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                is_looking_up = self._looking_up is not None and not self._looking_up.done()
                if loop.time() >= self._look_up_due_s and not is_looking_up:
                    # Beside the probes: a DNS that does not answer holds up none of them.
                    self._look_up_due_s = loop.time() + LOOK_UP_EVERY_S
                    self._looking_up = loop.create_task(self._look_seeds_up())
                self._begin_due()
                self.show()
                await asyncio.sleep(TICK_S)
        finally:
            for task in (*self._probes.values(), self._looking_up):
                if task is not None:
                    task.cancel()

    async def leave(self) -> None:
        """Tell all members that this one leaves, those that answer in time."""
        request = pb.Announcement(member=self._membership.leave().to_message())
        self.show()
        others = [member for member in self._membership.view.members if member.id != self._hello.member_id]
        await asyncio.gather(*(self._announce(member.address, request) for member in others))

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels.values():
            await channel.close()

    def show(self) -> None:
        """Tell of the view if it is another one."""
        view = self._membership.view
        if view is not self._told:
            self._told = view
            self._on_view(view)

    def _begin_due(self) -> None:
        for address in self._membership.due():
            if address not in self._probes:
                task = asyncio.get_running_loop().create_task(self._probe(address))
                self._probes[address] = task
                task.add_done_callback(lambda _, address=address: self._probes.pop(address, None))  # type: ignore[misc]
        message = pb.Announcement(member=self._me().to_message())
        for address in self._membership.unaware():
            self._probes[f"announce {address}"] = task = asyncio.get_running_loop().create_task(
                self._announce(address, message)
            )
            task.add_done_callback(
                lambda _, address=address: self._probes.pop(f"announce {address}", None)  # type: ignore[misc]
            )

    async def _probe(self, address: str) -> None:
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
        self.show()

    def _refused(self, address: str, reason: str) -> None:
        said = f"peer {address} is none of this group: {reason}"
        if said not in self._said:
            self._said.add(said)
            _log.warning("%s", said)
        self._membership.refused(address, reason)

    async def _announce(self, address: str, message: pb.Announcement) -> None:
        # Who does not hear it finds out by probing.
        with suppress(grpc.aio.AioRpcError, ConfigError):
            admin = pb_grpc.AdminStub(self._channel(address))
            await admin.Announce(message, timeout=_LEAVE_TIMEOUT_S)

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
