"""Members on hosts of their own, whose network is cut and mended: reads go on, and all end with one ring."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.peer.member import MemberState
from forebay.peer.ring import Ring
from forebay.peer.security.options import SecurityOptions
from tests.cluster._members import Serve, ServedMember
from tests.cluster._network import Network, network
from tests.cluster._site import BOUNDED_S, Site, read_all, running, wait_until

HOSTS = 3
PLAIN_TEXT = SecurityOptions(insecure=True)
UP, DOWN = MemberState.UP, MemberState.DOWN


def on_host(at: Network, host: int) -> Serve:
    return Serve(
        listen=f"{at.address(host)}:0",
        options=("--insecure",),
        prefix=at.inside(host),
        security=PLAIN_TEXT,
    )


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Network, Site]]:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with network(HOSTS) as at, running(tmp_path, 1, on_host(at, 0), at.own_address) as site:
        for host in range(1, HOSTS):
            site.members.how = on_host(at, host)
            site.members.add()
        yield at, site


def state_at(member: ServedMember, other: ServedMember) -> MemberState | None:
    view = member.view()
    found = {} if view is None else {each.id: each.state for each in view.members}
    return found.get(other.id)


def test_a_member_is_cut_off_and_joined_again(hosts: tuple[Network, Site]) -> None:
    at, site = hosts
    first, second, third = site.members.all
    with site.client(peer_timeout_s=1.0, security=PLAIN_TEXT).open() as cache:
        read_all(cache)
        at.set_link(2, up=False)
        assert read_all(cache) <= BOUNDED_S
        wait_until(lambda: state_at(first, third) is state_at(second, third) is DOWN)
        read_all(cache)
        at.set_link(2, up=True)
        site.members.wait_until_seen({each.id: UP for each in site.members.all})
        views = [each.view() for each in site.members.all]
        assert len({Ring(view).digest() for view in views if view is not None}) == 1
        read_all(cache)
        assert site.cost_of_reading(security=PLAIN_TEXT) == 0


def test_two_members_that_do_not_reach_each_other_stay_in_one_ring(hosts: tuple[Network, Site]) -> None:
    at, site = hosts
    first, second, third = site.members.all
    with site.client(peer_timeout_s=1.0, security=PLAIN_TEXT).open() as cache:
        read_all(cache)
        at.cut_one_way(1, 2)
        wait_until(lambda: state_at(second, third) is DOWN and state_at(third, second) is DOWN)
        wait_until(lambda: state_at(first, second) is state_at(first, third) is UP)
        views = [each.view() for each in site.members.all]
        assert len({Ring(view).digest() for view in views if view is not None}) == 1
        read_all(cache)
        at.mend_one_way(1, 2)
        site.members.wait_until_seen({each.id: UP for each in site.members.all})
        read_all(cache)
