"""What a member says to others, and what becomes of it where it cannot be said."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from forebay.clock import BootClock
from forebay.errors import ConfigError
from forebay.peer.handshake import Terms
from forebay.peer.member import MemberState, View
from forebay.peer.membership import Answer, Membership
from forebay.peer.prober import Prober
from tests.unit.peer._members import member


class NoCredentials:
    """What refuses to show a token."""

    def open_aio_channel(self, address: str, options: Any = ()) -> NoReturn:
        raise ConfigError(f"peer {address}: the token would go to another host in the clear")


def test_a_member_leaves_though_it_may_not_speak_to_another() -> None:
    me, other = member(1), member(2)
    membership = Membership(me, "g", (), clock=BootClock())
    membership.answered(other.address, Answer("g", other, View.of(1, [other])))
    shown: list[View] = []
    prober = Prober(membership, Terms("g", 1 << 20), me.id, (), NoCredentials(), shown.append)  # type: ignore[arg-type]
    asyncio.run(prober.leave())
    assert {each.id: each.state for each in shown[-1].members}[me.id] is MemberState.LEAVING
