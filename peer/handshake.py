"""The handshake: whether two hosts can be of one group, said before anything else.

What has to match is what would otherwise go wrong silently: with other blocks or another placement each would
look for data where the other has none. A mismatch is refused in words that name both sides' values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from forebay import __version__
from forebay.errors import ConfigError
from forebay.peer.member import Member, View
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.ring import METHOD, RUN_BYTES

PROTOCOL: Final = 1
ROLES: Final = ("client", "member")


@dataclass(frozen=True, slots=True)
class Terms:
    """What all hosts of a group have in common."""

    group: str
    block_bytes: int
    protocol: int = PROTOCOL
    method: str = METHOD
    run_bytes: int = RUN_BYTES

    def request(self, role: str, member_id: str = "") -> pb.HelloRequest:
        """Make the request of a client, or of a member of that id."""
        return pb.HelloRequest(
            protocol=self.protocol,
            group=self.group,
            block_bytes=self.block_bytes,
            placement=self._placement(),
            role=role,
            member_id=member_id,
            software=f"forebay {__version__}",
        )

    def reply(self, me: Member, view: View) -> pb.HelloReply:
        """Make the answer of a member with its view."""
        return pb.HelloReply(
            protocol=self.protocol,
            group=self.group,
            block_bytes=self.block_bytes,
            placement=self._placement(),
            self=me.to_message(),
            view=view.to_message(),
        )

    def check(self, other: pb.HelloRequest | pb.HelloReply) -> None:
        """Hold the other side to these. Raises: ConfigError (names what does not match, and both values)."""
        pairs = (
            ("protocol", other.protocol, self.protocol),
            ("group", other.group, self.group),
            ("block size", other.block_bytes, self.block_bytes),
            ("placement", other.placement.method, self.method),
            ("unit of placement", other.placement.run_bytes, self.run_bytes),
        )
        is_asked = isinstance(other, pb.HelloRequest)
        for what, theirs, ours in pairs:
            if theirs != ours:
                # The same words on both sides, for who asks is told what the member says.
                member, asking = (ours, theirs) if is_asked else (theirs, ours)
                raise ConfigError(
                    f"{what}: {member!r} at the member, {asking!r} at who asks; all of a group have the same"
                )
        if isinstance(other, pb.HelloRequest) and other.role not in ROLES:
            raise ConfigError(f"role: {other.role!r} is neither {' nor '.join(ROLES)}")

    def _placement(self) -> pb.Placement:
        return pb.Placement(method=self.method, run_bytes=self.run_bytes)
