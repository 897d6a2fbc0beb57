"""Real members see each other come, fall silent, come back and leave."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.peer.group import Group
from forebay.peer.member import MemberState
from forebay.peer.ring import Ring
from tests.cluster import _short_grace
from tests.cluster._members import Serve, ServedMember
from tests.cluster._site import BOUNDED_S, Site, read_all, running, wait_until

UP, DOWN = MemberState.UP, MemberState.DOWN


def digest(member: ServedMember) -> object:
    view = member.view()
    return None if view is None else Ring(view).digest()


def states(site: Site, **changed: MemberState) -> dict[str, MemberState]:
    """Return the states of all, the changed by their folders' names."""
    return {each.id: changed.get(each.folder.name, UP) for each in site.members.all}


def test_a_member_that_is_back_within_the_grace_has_moved_nothing(tmp_path: Path) -> None:
    with running(tmp_path, 3) as site:
        first, second, victim = site.members.all
        group = site.client(peer_timeout_s=1.0).group()
        with site.client().open(group) as cache:
            read_all(cache)
            before = digest(first)
            assert before is not None
            assert digest(second) == digest(victim) == before
            victim.signal(signal.SIGKILL)
            site.members.wait_until_seen(states(site, m2=DOWN))
            assert digest(first) == digest(second) == before
            victim.restart()
            site.members.wait_until_seen(states(site))
            assert digest(first) == digest(second) == digest(victim) == before
            # The client finds it well again by itself: where it is now, for its data port is another.
            wait_until(lambda: knows(group, victim))
            read_all(cache)
            assert site.cost_of_reading() == 0


def test_a_member_that_is_told_to_restart_moves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, 2) as site, site.client(peer_timeout_s=1.0).open() as cache:
        stays, restarts = site.members.all
        read_all(cache)
        before = digest(stays)
        restarts.signal(signal.SIGUSR1)
        assert restarts.process.returncode == 0, restarts.log()
        assert "Traceback" not in restarts.log()
        read_all(cache)
        # Silent, and not gone.
        site.members.wait_until_seen(states(site, m1=DOWN))
        assert digest(stays) == before
        restarts.restart()
        site.members.wait_until_seen(states(site))
        assert digest(stays) == digest(restarts) == before
        read_all(cache)
        assert site.cost_of_reading() == 0


@pytest.fixture(scope="module")
def short_grace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A group that gives a silent member up soon; all its members are up between tests."""
    with running(tmp_path_factory.mktemp("group"), 3, Serve(program=(_short_grace.__file__,))) as site:
        yield site


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_silent_member_gives_its_keys_up_after_the_grace(short_grace: Site, number: signal.Signals) -> None:
    site = short_grace
    with site.client(peer_timeout_s=1.0).open() as cache:
        first, second, victim = site.members.all
        # Whoever gets no processor for a moment is given up, too, and back soon.
        site.members.wait_until_seen(states(site))
        read_all(cache)
        before = digest(first)
        victim.signal(number)
        wait_until(lambda: victim.id not in up_at(first))
        assert read_all(cache) <= BOUNDED_S
        wait_until(lambda: digest(first) == digest(second) != before)
        if number == signal.SIGSTOP:
            victim.signal(signal.SIGCONT)
        else:
            victim.restart()
        wait_until(lambda: digest(first) == digest(second) == digest(victim) == before)
        read_all(cache)


def knows(group: Group, member: ServedMember) -> bool:
    """Say whether a client's view has this start of a member, and nobody is skipped."""
    ring = group.ring
    if ring is None or group.skipped(ring):
        return False
    seen = ring.get(member.id)
    return seen is not None and seen.data_port == member.data_port


def up_at(member: ServedMember) -> set[str]:
    view = member.view()
    return set() if view is None else {each.id for each in view.members if each.state is UP}
