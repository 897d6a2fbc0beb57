"""Connecting to a peer: names with dead addresses, and resolvers that do not answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forebay.peer.data.client import PeerLink
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import PeerDown
from forebay.peer.data.server import DataServer
from tests.integration._peer_answering import PATIENT, Member, greeting, welcome
from tests.integration.test_peer_data import read


@pytest.fixture
def member() -> Iterator[Member]:
    """A member in threads of this process."""
    with Member() as one:
        yield one


def names(monkeypatch: pytest.MonkeyPatch, look_up: Callable[[], list[int]]) -> None:
    """Have every name stand for the ports of this machine that look_up returns."""
    real = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, **how: Any) -> list[Any]:
        if how.get("flags") == socket.AI_NUMERICHOST:
            return real(host, port, **how)
        return [found for port in look_up() for found in real("127.0.0.1", port, **how)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_an_address_where_nobody_answers_does_not_use_up_the_time_of_the_next(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        address = silent.getsockname()
        # With this one its queue is full: the kernel lets further ones wait.
        with socket.create_connection(address):
            names(monkeypatch, lambda: [address[1], member.port])
            link = PeerLink(("member.example", member.port), greeting())
            begun_s = time.monotonic()
            assert read(link, 1) == [1]
            assert time.monotonic() - begun_s < PATIENT.silence_s
            link.close()


def test_a_resolver_that_says_nothing_is_not_waited_for(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = threading.Event()
    names(monkeypatch, lambda: [member.port] if answer.wait(60) else [])
    link = PeerLink(("member.example", member.port), greeting())
    with pytest.raises(PeerDown, match="no sign of life"):
        read(link, 1, deadline=Deadline(0.2))
    answer.set()
    assert read(link, 1) == [1]
    link.close()


@pytest.mark.parametrize("name", ["a..b", "h" * 64, ".h"])
def test_a_name_that_nothing_can_have_is_a_peer_that_is_down(name: str) -> None:
    link = PeerLink((name, 1), greeting())
    with pytest.raises(PeerDown, match="label"):
        read(link, 1)
    link.close()


def test_a_data_port_on_all_addresses_is_on_those_of_ipv4_too(member: Member) -> None:
    has_both = socket.has_dualstack_ipv6()
    server = DataServer(member.answerer, welcome)
    port = server.start("::" if has_both else "0.0.0.0")
    try:
        for host in ("127.0.0.1", "::1") if has_both else ("127.0.0.1",):
            link = PeerLink((host, port), greeting())
            assert read(link, 1) == [1]
            link.close()
    finally:
        server.close()
