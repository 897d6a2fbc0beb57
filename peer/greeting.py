"""What a process says of itself to a member before anything else, and what the member's reply has to be.

Two hosts that would place, part or name blocks differently must not exchange any: whatever differs is a
ConfigError that says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from forebay.errors import ConfigError
from forebay.peer.member import Member, View
from forebay.peer.proto import forebay_pb2 as messages
from forebay.peer.ring import METHOD, RUN_BYTES

PROTOCOL: Final = 1


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who asks: a process of this group, with blocks of this size. member_id is empty for a client."""

    group: str
    block_bytes: int
    role: str
    member_id: str
    software: str

    def request(self) -> messages.HelloRequest:
        """Make the request."""
        return messages.HelloRequest(
            protocol=PROTOCOL,
            group=self.group,
            block_bytes=self.block_bytes,
            placement=messages.Placement(method=METHOD, run_bytes=RUN_BYTES),
            role=self.role,
            member_id=self.member_id,
            software=self.software,
        )

    def check(self, reply: messages.HelloReply, expected: Member | None = None) -> View:
        """Hold a reply to what this process goes by; return the view that came with it.

        expected: the member that is meant to be there. Raises: ConfigError (names what differs).
        """
        _same("protocol", reply.protocol, PROTOCOL)
        _same("group", reply.group, self.group)
        _same("block size", reply.block_bytes, self.block_bytes)
        _same("placement", reply.placement.method, METHOD)
        _same("unit of placement", reply.placement.run_bytes, RUN_BYTES)
        if expected is not None and reply.self.id != expected.id:
            raise ConfigError(f"another member is there: {reply.self.id!r} instead of {expected.id!r}")
        return View.from_message(reply.view)


def _same(what: str, theirs: object, ours: object) -> None:
    if theirs != ours:
        raise ConfigError(f"the {what} is {theirs!r} there and {ours!r} here")
