"""What a member says to others, and what becomes of it where it cannot be said."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc
import pytest

from forebay.clock import BootClock
from forebay.errors import ConfigError
from forebay.peer.handshake import Terms
from forebay.peer.member import MemberState, View
from forebay.peer.membership import Answer, Membership
from forebay.peer.prober import Prober
from forebay.peer.seeds import Seeds
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


class Refusing:
    """A channel to an address where something else answers."""

    def __init__(self, opened: set[Refusing]) -> None:
        self._open = opened
        opened.add(self)

    def unary_unary(self, *arguments: Any, **named: Any) -> Any:
        async def call(*arguments: Any, **named: Any) -> NoReturn:
            none = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.FAILED_PRECONDITION, none, none, "another group")

        return call

    def __getattr__(self, name: str) -> Any:
        return self.unary_unary  # the other kinds of calls, which are not made

    async def close(self) -> None:
        self._open.discard(self)


class OpenCredentials:
    """What counts the channels that are open."""

    def __init__(self) -> None:
        self.open: set[Refusing] = set()
        self.opened = 0

    def open_aio_channel(self, address: str, options: Any = ()) -> Refusing:
        self.opened += 1
        return Refusing(self.open)


def test_addresses_that_are_gone_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("forebay.peer.prober.TICK_S", 0.0)
    me, credentials = member(1), OpenCredentials()
    membership = Membership(me, "g", (), clock=BootClock())
    prober = Prober(membership, Terms("g", 1 << 20), me.id, (), credentials, lambda view: None)  # type: ignore[arg-type]
    most = 0

    async def change_addresses() -> None:
        nonlocal most
        probing = asyncio.create_task(prober.run())
        for number in range(300):
            membership.seed([f"10.0.0.1:{1000 + number}", f"10.0.0.2:{1000 + number}"])
            while credentials.opened < 2 * (number + 1):
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            most = max(most, len(credentials.open))
        membership.seed([])
        while credentials.open:
            await asyncio.sleep(0)
        probing.cancel()
        await prober.close()

    asyncio.run(change_addresses())
    assert most <= 8
    assert len({record.getMessage() for record in caplog.records}) == 600
    assert not prober._said


def test_many_names_that_the_dns_does_not_answer_for_take_few_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"host-{number}:7070" for number in range(40)]
    waiting = most = 0

    async def getaddrinfo(host: str, port: int, **how: Any) -> list[Any]:
        nonlocal waiting, most
        waiting += 1
        most = max(most, waiting)
        await asyncio.sleep(0)
        waiting -= 1
        return [(None, None, None, "", ("10.0.0.1", port))]

    async def look_up() -> list[str]:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        return await Seeds(names).look_up()

    assert asyncio.run(look_up()) == names
    assert most <= 4
