"""Random and mutated bytes to every call of a member that really serves: an error, and it goes on serving."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import grpc
import pytest

from tests.cluster._site import Site, read_all, running
from tests.faults.test_peer_fuzz import EXPECTED, METHODS, messages, status_of

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
