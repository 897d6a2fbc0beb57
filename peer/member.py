"""A member of a group as others see it, a view of all of them, and both as messages of forebay.v1.

Its invariant: a Member is sound. Whatever is wrong with one, be it from a message or a configuration, is a
ConfigError that names the field, so no other module has to look at ids, weights or addresses again.
"""

from __future__ import annotations

import enum
import functools
import itertools
import math
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from forebay.errors import ConfigError
from forebay.peer._placement import MEMBERS_MAX, WEIGHT_MAX, WEIGHT_MIN, WEIGHT_ONE
from forebay.peer.proto import forebay_pb2 as messages
from forebay.peer.security.listen import PORT_MAX, split_address

NAME_BYTES_MAX: Final = 255
INCARNATION_MAX: Final = (1 << 64) - 1
# No group gets there by changes: a million a second would take it a hundred thousand years. So whoever tells
# of more is at fault, and one more than any that is believed still fits into a message.
EPOCH_MAX: Final = 1 << 62

_VIEWS_KEPT: Final = 4


class MemberState(enum.IntEnum):
    """What is known of a member; the numbers are those of the messages."""

    UP = 0
    DOWN = 1  # does not answer; its keys are still its own
    LEAVING = 2  # answers, but gets no new keys


@dataclass(frozen=True, slots=True)
class Member:
    """One member. Raises: ConfigError (a field that cannot be so)."""

    id: str
    address: str
    data_port: int = 0
    weight: float = 1.0
    zone: str = ""
    state: MemberState = MemberState.UP
    incarnation: int = 0
    host: str = ""
    gateway_port: int = 0

    def __post_init__(self) -> None:
        check_id(self.id)
        check_address(self.address)
        _check_number("data_port", self.data_port, PORT_MAX)
        _check_number("gateway_port", self.gateway_port, PORT_MAX)
        _check_number("incarnation", self.incarnation, INCARNATION_MAX)
        _check_name("zone", self.zone)
        _check_name("host", self.host)
        if not math.isfinite(self.weight) or not WEIGHT_MIN <= self.weight_units <= WEIGHT_MAX:
            raise ConfigError(
                f"weight {self.weight!r} of member {self.id}: expected {WEIGHT_MIN / WEIGHT_ONE:.4f} to "
                f"{WEIGHT_MAX // WEIGHT_ONE}"
            )

    @property
    def weight_units(self) -> int:
        """The weight as placement counts it."""
        return round(self.weight * WEIGHT_ONE)

    @property
    def gateway(self) -> str:
        """HOST:PORT of its WebHDFS gateway, "" without one."""
        return f"{self.address.rpartition(':')[0]}:{self.gateway_port}" if self.gateway_port else ""

    def to_message(self) -> messages.Member:
        """Make the message."""
        return messages.Member(
            id=self.id,
            address=self.address,
            data_port=self.data_port,
            weight=self.weight,
            zone=self.zone,
            state=messages.MemberState.Name(self.state),
            incarnation=self.incarnation,
            host=self.host,
            gateway_port=self.gateway_port,
        )

    @classmethod
    def from_message(cls, message: messages.Member) -> Member:
        """Read a message, which may come from anybody. Raises: ConfigError (names the field)."""
        try:
            state = MemberState(message.state)
        except ValueError:
            raise ConfigError(
                f"state {message.state} of member {message.id!r} is none of this version"
            ) from None
        return cls(
            message.id,
            message.address,
            message.data_port,
            message.weight,
            message.zone,
            state,
            message.incarnation,
            message.host,
            message.gateway_port,
        )


class View(NamedTuple):
    """The members as somebody sees them, sorted by id, and the number of that view."""

    epoch: int
    members: tuple[Member, ...]

    def to_message(self) -> messages.View:
        """Make the message."""
        return messages.View(epoch=self.epoch, members=[member.to_message() for member in self.members])

    @classmethod
    def from_message(cls, message: messages.View) -> View:
        """Read a message, which may come from anybody.

        Raises: ConfigError (too many members, one of them twice, a field that cannot be so).
        """
        if message.epoch > EPOCH_MAX:
            raise ConfigError(f"epoch {message.epoch} of a view: expected {EPOCH_MAX} at most")
        if len(message.members) > MEMBERS_MAX:
            raise ConfigError(f"a view of {len(message.members)} members, at most {MEMBERS_MAX}")
        return _read_view(message.SerializeToString(deterministic=True))

    @classmethod
    def of(cls, epoch: int, members: Iterable[Member]) -> View:
        """Make a view of members in any order. Raises: ConfigError (a member twice)."""
        ordered = tuple(sorted(members, key=lambda member: member.id))
        for one, other in itertools.pairwise(ordered):
            if one.id == other.id:
                raise ConfigError(two_addresses(one.id, one.address, other.address))
        return cls(epoch, ordered)


@functools.lru_cache(maxsize=_VIEWS_KEPT)
def _read_view(data: bytes) -> View:
    """Read a message. In a quiet group all members send one and the same, again and again."""
    message = messages.View.FromString(data)
    return View.of(message.epoch, map(Member.from_message, message.members))


def two_addresses(member_id: str, one: str, other: str) -> str:
    """Say that a member id is used at two addresses, and what to do about it."""
    return (
        f"member {member_id} is at {one} and at {other}: a cache directory belongs to one member, and a copy "
        "of one must not take its member file along"
    )


def check_id(text: str) -> None:
    """Hold a member's id to the form that every host writes it in. Raises: ConfigError."""
    try:
        is_sound = str(uuid.UUID(text)) == text
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ConfigError(f"member id {text!r}: expected a UUID in lower case with hyphens")


def check_address(text: str) -> None:
    """Hold an address to ``host:port``, an IPv6 address in brackets. Raises: ConfigError."""
    try:
        host, port = split_address(text)
        host.encode("idna")  # as the resolver is given it
        is_sound = port > 0 and _is_name(host)
    except (ConfigError, UnicodeError):
        is_sound = False
    if not is_sound:
        shown = repr(text[:NAME_BYTES_MAX])
        raise ConfigError(
            f"address {shown}: expected host:port, an IPv6 address in brackets, labels of 1 to 63 letters"
        )


def _check_number(field: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise ConfigError(f"{field} {value} of a member: expected 0 to {most}")


def _check_name(field: str, text: str) -> None:
    if not _is_name(text):
        shown = repr(text[:NAME_BYTES_MAX])
        raise ConfigError(
            f"{field} {shown} of a member: expected printable text, {NAME_BYTES_MAX} bytes at most"
        )


def _is_name(text: str) -> bool:
    return text.isprintable() and " " not in text and len(text.encode("utf-8", "replace")) <= NAME_BYTES_MAX
