"""Random and mutated bytes to every call of a member that really serves: an error, and it goes on serving."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import grpc
import pytest

from forebay.peer.frames import pack_hello
from forebay.peer.handshake import Terms
from tests.cluster._members import BLOCK, GROUP
from tests.cluster._site import Site, read_all, running
from tests.faults.test_peer_fuzz import EXPECTED, METHODS, messages, mutated, status_of

HOST = "127.0.0.1"
TIMEOUT_S = 30
CALLS = 40
# What a double never answers: a handshake refused, work that is not for this member.
ALSO_EXPECTED = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("group"), 1) as site:
        yield site


def test_hostile_messages_to_every_call(site: Site) -> None:
    member = site.members.all[0]
    with site.client().open() as cache:
        read_all(cache)
    unexpected = []
    with grpc.insecure_channel(member.address) as channel:
        for method, kind in METHODS.items():
            for contents in islice(messages(kind, method), CALLS):
                code = status_of(channel, method, contents)
                if code not in EXPECTED | ALSO_EXPECTED:
                    unexpected.append((method, code, contents))
            assert member.process.poll() is None, method
    assert unexpected == []
    assert "Traceback" not in member.log()
    with site.client().open() as cache:
        read_all(cache)


def test_hostile_bytes_to_the_data_port(site: Site) -> None:
    member = site.members.all[0]
    chance = random.Random("data port")
    hello = pack_hello(Terms(GROUP, BLOCK).request("client").SerializeToString(), None)
    for number in range(CALLS):
        first = mutated(hello, chance) if number % 2 else hello
        sent = first + chance.randbytes(chance.randrange(1, 3_000))
        with socket.create_connection((HOST, member.data_port), TIMEOUT_S) as connection:
            with suppress(OSError):
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
            # It answers or not, and ends the connection.
            with suppress(OSError):
                while connection.recv(65_536):
                    pass
    assert member.process.poll() is None
    assert "Traceback" not in member.log()
    with site.client().open() as cache:
        read_all(cache)
        site.requests()
        read_all(cache)
        assert site.requests() == 0
