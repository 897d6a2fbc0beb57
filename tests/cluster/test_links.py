"""What goes wrong on the way to a member: reads stay right and bounded, whatever its ports answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from forebay.peer.member import MemberState
from forebay.testing.faults import Fault, FaultKind
from forebay.testing.proxy import Proxy
from tests.cluster._members import Serve
from tests.cluster._site import Site, read_all, running, wait_until

HERE, FAR = "127.0.0.1", "127.0.0.2"
_KINDS: tuple[FaultKind, ...] = ("reset", "cut", "truncate", "corrupt")
FAULTS: list[Fault] = [
    Fault("delay", delay_s=0.2, times=3),
    *(Fault(kind, after_bytes=after) for kind in _KINDS for after in (None, 5, 2_000)),
]


@contextmanager
def far_member(site: Site) -> Iterator[dict[str, Proxy]]:
    """Add a member whose ports others reach by proxies alone."""
    ports = {"grpc": _free_port(), "data": _free_port()}
    with ExitStack() as stack:
        proxies = {
            name: stack.enter_context(Proxy((HERE, port), listen=(FAR, port))) for name, port in ports.items()
        }
        site.members.how = Serve(
            listen=f"{HERE}:{ports['grpc']}",
            options=("--advertise", f"{FAR}:{ports['grpc']}", "--data-port", str(ports["data"])),
        )
        site.members.add()
        yield proxies


def _free_port() -> int:
    with socket.create_server((HERE, 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, Proxy]]]:
    with running(tmp_path_factory.mktemp("group"), 1) as site, far_member(site) as proxies:
        with site.client().open() as cache:
            read_all(cache)
        assert proxies["data"].stats()["bytes_to_client"] > 1_000_000
        yield site, proxies


@pytest.mark.parametrize("is_known", [False, True], ids=["unknown", "known"])
def test_reads_are_right_whatever_befalls_blocks(site: tuple[Site, dict[str, Proxy]], is_known: bool) -> None:
    """Of objects that are not known yet the first answer tells what they are; later ones are blocks alone."""
    at, proxies = site
    try:
        for fault in FAULTS:
            with at.client(peer_timeout_s=0.5).open() as cache:
                if is_known:
                    read_all(cache)
                proxies["data"].stats(reset=True)
                proxies["data"].set_faults([fault])
                read_all(cache)
                assert proxies["data"].stats()["faults"] > 0, fault
                proxies["data"].set_faults([])
    finally:
        proxies["data"].set_faults([])


@pytest.mark.parametrize("kind", ["reset", "cut", "corrupt"])
def test_reads_go_on_while_calls_fail(site: tuple[Site, dict[str, Proxy]], kind: FaultKind) -> None:
    at, proxies = site
    far = at.members.all[1]
    with at.client(peer_timeout_s=0.5).open() as cache:
        proxies["grpc"].set_faults([Fault(kind)])
        try:
            wait_until(lambda: proxies["grpc"].stats()["faults"] > 0)
            assert read_all(cache) < 5.0
        finally:
            proxies["grpc"].set_faults([])
    # Found well again by itself.
    at.members.wait_until_seen({each.id: MemberState.UP for each in (at.members.all[0], far)})


def test_another_service_in_place_of_a_member_is_passed_over(site: tuple[Site, dict[str, Proxy]]) -> None:
    at, _ = site
    other = at.proxy.url.removeprefix("http://")
    client = at.client(peer_timeout_s=1.0)
    for seeds in ([other], [other, *client.seeds]):
        with replace(client, seeds=seeds).open() as cache:
            read_all(cache)
