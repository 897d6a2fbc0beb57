"""The gRPC services of members, as one process calls them for commands; reads have ways of their own.

gRPC does not outlive a fork: in a child of a process that has used it these calls would hang, so they are
refused there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from forebay.peer.forks import may_call
from forebay.peer.member import Member

if TYPE_CHECKING:
    from forebay.peer.security.credentials import Credentials
    from forebay.peer.security.options import SecurityOptions

# What gRPC itself waits before it connects anew would hide for long that a member is back.
CHANNEL_OPTIONS: Final = (
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 16 << 20),
)


# Of a member that is in no view any more: longer than any call that is answered at once may take. One that
# tells of a load for that long, of a member that nobody sees, ends as if the member had.
KEEP_S: Final = 300.0


class MemberStub(NamedTuple):
    """A member that is up, and the stubs of its services.

    name is what people know it by, host the machine that it is on.
    """

    id: str
    name: str
    host: str
    peer: Any
    admin: Any


class Stubs:
    """The channels of one process, one for each member, made when they are first asked for. Threads: any."""

    def __init__(self, security: SecurityOptions, now_s: Callable[[], float] = time.monotonic) -> None:
        """Call with what the host shows to members. Connects to nobody."""
        self._security: Final = security
        self._now_s: Final = now_s
        self._lock: Final = threading.Lock()
        self._channels: Final[dict[str, Any]] = {}
        # Addresses that are in no view any more, and when that was first seen.
        self._gone_s: Final[dict[str, float]] = {}

    def of(self, member: Member) -> MemberStub:
        """Return the stubs of a member. Raises: ConfigError (credentials); OSError (a forked process)."""
        _check_process()
        with self._lock:
            channel = self._channels.get(member.address)
            if channel is None:
                channel = self._channels[member.address] = self._open(member)
        return _stub(member, channel)

    def keep(self, addresses: Collection[str]) -> None:
        """Close the channels to all but these, KEEP_S after the first time that they were not among them."""
        now_s = self._now_s()
        with self._lock:
            for address in self._gone_s.keys() & addresses:
                del self._gone_s[address]
            for address in self._channels.keys() - addresses:
                self._gone_s.setdefault(address, now_s)
            over = [address for address, since_s in self._gone_s.items() if now_s - since_s >= KEEP_S]
            channels = [self._channels.pop(address) for address in over]
            for address in over:
                del self._gone_s[address]
        for channel in channels:
            channel.close()

    @contextmanager
    def for_once(self, member: Member) -> Iterator[MemberStub]:
        """Have the stubs of a member for a with statement, which leaves no channel behind. Raises: as ``of``.

        Without channels there is less for a fork to trip over.
        """
        _check_process()
        channel = self._open(member)
        try:
            yield _stub(member, channel)
        finally:
            channel.close()

    def close(self) -> None:
        """Close all; may be called twice."""
        with self._lock:
            channels = list(self._channels.values())
            self._channels.clear()
            self._gone_s.clear()
        for channel in channels:
            channel.close()

    @cached_property
    def _credentials(self) -> Credentials:
        # Read once; they look themselves whether their files have changed.
        return self._security.credentials()

    def _open(self, member: Member) -> Any:
        return self._credentials.open_channel(member.address, CHANNEL_OPTIONS)


def _stub(member: Member, channel: Any) -> MemberStub:
    from forebay.peer.proto import forebay_pb2_grpc as pb_grpc

    return MemberStub(
        member.id, member.address, member.host, pb_grpc.PeerStub(channel), pb_grpc.AdminStub(channel)
    )


def _check_process() -> None:
    """Note that this process calls. Raises: OSError (it was forked from one that does)."""
    if not may_call():
        raise OSError("a process that was forked from one that has called members can only read from them")
