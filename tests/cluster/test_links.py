"""What goes wrong on the way to a member: reads stay right and bounded, whatever its ports answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from forebay.peer.member import MemberState
from forebay.peer.peers import GroupLimits
from forebay.testing.faults import Fault, FaultKind
from forebay.testing.proxy import Proxy
from tests._ports import port_of_ones_own
from tests.cluster._members import Serve, ServedMember
from tests.cluster._site import BOUNDED_S, OBJECTS, PATIENCE_S, Site, read_all, running, wait_until

HERE, FAR = "127.0.0.1", "127.0.0.2"
LOSSES = 3
MEGABIT_PER_S = 1e6 / 8
FAULTY_OBJECTS = 8
_KINDS: tuple[FaultKind, ...] = ("reset", "cut", "truncate", "corrupt")
FAULTS: list[Fault] = [
    Fault("delay", delay_s=0.2, times=3),
    *(Fault(kind, after_bytes=after) for kind in _KINDS for after in (None, 5, 2_000)),
]


@contextmanager
def far_member(site: Site, bytes_per_s: float | None = None) -> Iterator[dict[str, Proxy]]:
    """Add a member whose ports others reach by proxies alone, each of which passes so much."""
    ports = {"grpc": port_of_ones_own(), "data": port_of_ones_own()}
    with ExitStack() as stack:
        proxies = {
            name: stack.enter_context(
                Proxy((HERE, port), listen=(FAR, port), bandwidth_bytes_per_s=bytes_per_s)
            )
            for name, port in ports.items()
        }
        site.members.how = Serve(
            listen=f"{HERE}:{ports['grpc']}",
            options=("--advertise", f"{FAR}:{ports['grpc']}", "--data-port", str(ports["data"])),
        )
        site.members.add()
        yield proxies


def names_of(site: Site, member: ServedMember) -> list[str]:
    return [name for name in OBJECTS if site.owner_of(name) is member]


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
    names = names_of(at, at.members.all[1])[:FAULTY_OBJECTS]
    try:
        for fault in FAULTS:
            # Where a client has no view in time, or holds the member for silent, others are asked for once.
            wait_until(lambda fault=fault: is_struck(at, proxies["data"], fault, names, is_known))  # type: ignore[misc]
    finally:
        proxies["data"].set_faults([])


def is_struck(at: Site, proxy: Proxy, fault: Fault, names: list[str], is_known: bool) -> bool:
    """Read while a fault strikes, and say whether it did."""
    with at.client(peer_timeout_s=0.5).open() as cache:
        if is_known:
            read_all(cache, names)
        proxy.stats(reset=True)
        proxy.set_faults([fault])
        read_all(cache, names)
        proxy.set_faults([])
        return bool(proxy.stats()["faults"] > 0)


@pytest.mark.parametrize("seed", range(LOSSES))
def test_reads_are_right_over_a_link_that_loses_and_stalls_at_random(
    site: tuple[Site, dict[str, Proxy]], seed: int
) -> None:
    at, proxies = site
    try:
        with at.client(peer_timeout_s=0.5).open() as cache:
            proxies["data"].stats(reset=True)
            proxies["data"].set_faults(losses(seed))

            def is_struck_by_losses() -> bool:
                for _ in range(2):
                    # Each read is bounded by itself, by silence and not by how many come before it.
                    assert read_all(cache) < BOUNDED_S
                return bool(proxies["data"].stats()["faults"] > 0)

            # Once more where there was no view of the members in time.
            wait_until(is_struck_by_losses)
    finally:
        proxies["data"].set_faults([])


def losses(seed: int) -> list[Fault]:
    """Return what befalls a few hundred answers in turn, as a lossy link looks from above TCP."""
    random = Random(seed)
    found = []
    for _ in range(200):
        after = random.choice([None, random.randrange(100_000)])
        # Packets that are sent again hold an answer up; too many, and the connection is gone, told or not.
        found.append(
            random.choices(
                [
                    Fault("delay", after, delay_s=0.0, times=1),
                    Fault("delay", after, delay_s=random.uniform(0.01, 0.7), times=1),
                    Fault("reset", after, times=1),
                    Fault("cut", after, times=1),
                ],
                weights=[12, 6, 2, 1],
            )[0]
        )
    return found


def test_reads_are_right_over_a_slow_link(tmp_path: Path) -> None:
    with running(tmp_path, 1) as at, far_member(at, MEGABIT_PER_S) as proxies:
        limits = GroupLimits()
        group = at.client(peer_timeout_s=limits.peer_timeout_s).group()
        with at.client().open(group) as cache:
            far = at.members.all[1]
            # Of those that take longer than a peer may be silent.
            limit_bytes = MEGABIT_PER_S * limits.peer_timeout_s
            sizes = {name: len(OBJECTS[name]) for name in names_of(at, far)}
            name = min((name for name in sizes if sizes[name] > limit_bytes), key=sizes.__getitem__)
            # Cold and warm: whatever the way is, it comes whole, and each read ends.
            for _ in range(2):
                assert read_all(cache, [name]) < PATIENCE_S
            assert proxies["data"].stats()["bytes_to_client"] > limit_bytes
            # Slow is not gone: bytes that come are signs of life.
            assert far.view() is not None
            assert group.status()["counters"]["failures"] == 0


@pytest.mark.parametrize("kind", ["reset", "cut", "corrupt"])
def test_reads_go_on_while_calls_fail(site: tuple[Site, dict[str, Proxy]], kind: FaultKind) -> None:
    at, proxies = site
    far = at.members.all[1]
    with at.client(peer_timeout_s=0.5).open() as cache:
        proxies["grpc"].set_faults([Fault(kind)])
        try:
            wait_until(lambda: proxies["grpc"].stats()["faults"] > 0)
            assert read_all(cache) < BOUNDED_S
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
