"""The ways to members of one process: their data ports, and gRPC for the first word to a seed.

gRPC does not survive a fork, so a child of a process that has used it greets nobody: it goes by what its
parent was told, and asks the members of that view by their data ports.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, ClassVar, Final

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from forebay.errors import ConfigError
from forebay.peer.data.client import PeerLink
from forebay.peer.data.connection import Greeting
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import PeerDown, down, refused
from forebay.peer.forks import apart_from_forks, may_call
from forebay.peer.handshake import Terms
from forebay.peer.member import Member, View
from forebay.peer.proto import forebay_pb2 as messages
from forebay.peer.proto import forebay_pb2_grpc as services
from forebay.peer.security.listen import split_address
from forebay.peer.stubs import CHANNEL_OPTIONS

if TYPE_CHECKING:
    from forebay.peer.group import Group
    from forebay.peer.link import Link
    from forebay.peer.service.blocks_client import StreamLink

_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)


class _Told:
    """What was told by gRPC to this process, or one that it was forked from, by group and address."""

    views: ClassVar[dict[tuple[str, str], View]] = {}


class PeerLinks:
    """A ``forebay.peer.link.Links`` over the data ports of a group's members. Threads: any."""

    def __init__(self, group: Group) -> None:
        """Connect to nobody yet. Raises: ConfigError (credentials that cannot be used)."""
        self._credentials: Final = group.credentials()
        self._terms: Final = Terms(group.name, group.block_bytes)
        self._hello: Final = self._terms.request(group.role, group.find_own_id() or "")
        self._is_closed = False
        self._lock: Final = threading.Lock()
        self._links: Final[dict[str, tuple[Member, PeerLink | StreamLink]]] = {}

    def link(self, member: Member) -> Link:
        """Return the way to a member, by the address that it has now."""
        return self._link(member)

    def view(self, member: Member, *, deadline: Deadline) -> View:
        """Return the view of the group that a member has. Raises: PeerDown; PeerRefused."""
        content = self._link(member).view(deadline=deadline)
        if content is None:
            raise down(member.address, "it has no view of its group")
        try:
            return View.from_message(messages.View.FromString(content))
        except (DecodeError, ConfigError) as error:
            raise down(member.address, f"its view of the group makes no sense: {error}") from error

    def greet(self, address: str, *, deadline: Deadline) -> View:
        """Shake hands with whatever member answers at an address, by gRPC, and return its view."""
        known_as = (self._terms.group, address)
        if not may_call():
            if (view := _Told.views.get(known_as)) is not None:
                return view
            raise down(address, "this process was forked from one that uses gRPC; it greets no member")
        # It is for this one call, and a fork waits for its end, as long as it may take at most.
        with apart_from_forks(lambda: None):
            channel = self._credentials.open_channel(address)
            try:
                reply = services.PeerStub(channel).Hello(self._hello, timeout=_left_s(deadline))
            except grpc.RpcError as error:
                raise _failure(address, error) from error
            finally:
                channel.close()
        try:
            self._terms.check(reply)
            view = _Told.views[known_as] = View.from_message(reply.view)
        except ConfigError as error:
            raise refused(address, str(error)) from error
        return view

    def keep(self, member_ids: frozenset[str]) -> None:
        """Close the ways to all but these members; one that is in use stays until this is called again."""
        with self._lock:
            gone = [
                self._links.pop(member_id)[1]
                for member_id in self._links.keys() - member_ids
                if not self._links[member_id][1].in_flight
            ]
        for link in gone:
            link.close()

    def close(self) -> None:
        """Close all; may be called twice."""
        with self._lock:
            self._is_closed = True
            links = [link for _, link in self._links.values()]
            self._links.clear()
        for link in links:
            link.close()

    def _link(self, member: Member) -> PeerLink | StreamLink:
        known = self._links.get(member.id)
        if known is not None and _is_there(member, known[0]):
            return known[1]
        with self._lock:
            if self._is_closed:
                # A thread that was about to ask; nobody would close what it opens.
                raise PeerDown(f"{member.address}: the group was closed")
            known = self._links.get(member.id)
            if known is None or not _is_there(member, known[0]):
                if known is not None:
                    known[1].close()
                known = self._links[member.id] = (member, self._make(member))
        return known[1]

    def _make(self, member: Member) -> PeerLink | StreamLink:
        if not member.data_port:
            return self._make_stream(member)
        tls = self._credentials.tls

        def check(content: bytes) -> None:
            try:
                reply = messages.HelloReply.FromString(content)
            except DecodeError as error:
                raise ConfigError(f"its greeting is none: {error}") from error
            self._terms.check(reply)
            if reply.self.id != member.id:
                raise ConfigError(f"another member is there: {reply.self.id!r} instead of {member.id!r}")

        greeting = Greeting(
            hello=self._hello.SerializeToString,
            token=lambda: self._credentials.token_for(member.address),
            check=check,
        )
        host, _ = split_address(member.address)
        target = (host, member.data_port)
        return PeerLink(target, greeting, tls=None if tls is None else lambda: tls.ssl_context)

    def _make_stream(self, member: Member) -> PeerLink | StreamLink:
        """Return the way to a member without a data port: the same frames over gRPC."""
        if not may_call():
            words = "it has no data port, and this process was forked from one that uses gRPC"
            raise down(member.address, words)
        from forebay.peer.service.blocks_client import StreamLink

        open_channel = self._credentials.open_channel
        return StreamLink(member.address, lambda: open_channel(member.address, CHANNEL_OPTIONS))


def _is_there(member: Member, known: Member) -> bool:
    return (member.address, member.data_port) == (known.address, known.data_port)


def _failure(address: str, error: grpc.RpcError) -> OSError:
    code, words = error.code(), error.details() or str(error.code())
    return refused(address, words) if code in _REFUSALS else down(address, words)


def _left_s(deadline: Deadline) -> float:
    if deadline.end_s is None:
        return deadline.silence_s
    return max(min(deadline.silence_s, deadline.end_s - time.monotonic()), 0.0)
