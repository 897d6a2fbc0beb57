"""Members by number, and groups of them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable

from forebay.peer.member import Member, MemberState, View
from forebay.peer.ring import Ring


def member_id(number: int) -> str:
    return str(uuid.UUID(bytes=random.Random(number).randbytes(16)))


def member(
    number: int,
    *,
    weight: float = 1.0,
    zone: str = "",
    state: MemberState = MemberState.UP,
    incarnation: int = 1,
    address: str | None = None,
) -> Member:
    return Member(
        member_id(number),
        address or f"host-{number}:7070",
        weight=weight,
        zone=zone,
        state=state,
        incarnation=incarnation,
    )


def ring(members: Iterable[Member], epoch: int = 1) -> Ring:
    return Ring(View.of(epoch, members))
