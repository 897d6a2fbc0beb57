"""Membership and placement of whole groups, simulated: seeds of random troubles, and the plain cases.

What holds after every trouble, once links are whole and time has passed: all see the same view with the same
epoch, which lists exactly those who run; so all name the same owners.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.cluster._simulation import RULES, TICK_S, Host, Simulation, owners
from tests.cluster._troubles import SETTLE_S, assert_agreed, have_troubles

# Those that follow are had by tests/stress.
SEEDS = 1_000
SEEDS_A_TEST = 125


def settled(seed: int, host_count: int) -> Simulation:
    """A group of running members that know each other."""
    simulation = Simulation(seed, host_count)
    for host in simulation.hosts:
        simulation.start(host)
    simulation.run(SETTLE_S)
    assert_agreed(simulation)
    return simulation


def digests(hosts: Iterable[Host]) -> set[str]:
    """The rings that running members see: one, if they agree."""
    return {host.process.ring.digest() for host in hosts if host.process is not None}


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_views_agree_again_after_any_trouble(first: int) -> None:
    for seed in range(first, first + SEEDS_A_TEST):
        have_troubles(seed)


@pytest.mark.parametrize("address", [None, "elsewhere:7070"])
def test_a_restart_within_the_grace_moves_nothing(address: str | None) -> None:
    for seed in range(30):
        simulation = settled(seed, 4)
        host = simulation.hosts[2]
        before = digests(simulation.running)
        simulation.kill(host)
        simulation.run(simulation.random.uniform(1.0, RULES.grace_s - 5))
        assert digests(simulation.running) == before
        simulation.start(host, address)
        others = [other for other in simulation.running if other is not host]
        for _ in range(round(SETTLE_S / TICK_S)):
            simulation.run(TICK_S)
            assert digests(others) == before
        assert_agreed(simulation)
        assert digests(simulation.running) == before


def test_readers_know_within_seconds_that_a_member_is_down() -> None:
    simulation = settled(1, 4)
    simulation.kill(simulation.hosts[3])
    simulation.run(5.0)
    for host in simulation.running:
        assert host.process is not None
        assert host.process.ring.down == {simulation.hosts[3].id}


def test_who_stays_away_loses_its_keys_and_nobody_else_does() -> None:
    simulation = settled(2, 5)
    gone = simulation.hosts[4]
    process = simulation.hosts[0].process
    assert process is not None
    before = owners(process)
    simulation.kill(gone)
    simulation.run(RULES.grace_s + SETTLE_S)
    assert_agreed(simulation)
    for old, new in zip(before, owners(process), strict=True):
        assert gone.id not in new
        assert old[0] == new[0] or old[0] == gone.id


def test_a_cut_between_two_members_alone_does_not_part_their_rings() -> None:
    simulation = settled(3, 4)
    one, other = simulation.hosts[1:3]
    before = digests(simulation.running)
    simulation.cut([one], [other])
    for _ in range(round(3 * RULES.grace_s / TICK_S)):
        simulation.run(TICK_S)
        assert digests(simulation.running) == before
    assert one.process is not None
    assert one.process.ring.down == {other.id}
    simulation.network.cuts.clear()
    simulation.run(SETTLE_S)
    assert_agreed(simulation)


def test_halves_of_a_group_go_on_alone_and_find_each_other_again() -> None:
    simulation = settled(4, 5)
    ones, others = simulation.hosts[:2], simulation.hosts[2:]
    before = digests(simulation.running)
    simulation.cut(ones, others)
    simulation.run(RULES.grace_s - 5)
    assert digests(simulation.running) == before
    simulation.run(15.0)
    for half in (ones, others):
        assert len(digests(half)) == 1
        for host in half:
            assert host.process is not None
            assert {member.id for member in host.process.ring.members} == {member.id for member in half}
    simulation.network.cuts.clear()
    simulation.run(SETTLE_S)
    assert_agreed(simulation)
    assert digests(simulation.running) == before


def test_lost_messages_move_nothing() -> None:
    simulation = settled(5, 5)
    before = digests(simulation.running)
    simulation.network.loss = 0.1
    for _ in range(round(3 * RULES.grace_s / TICK_S)):
        simulation.run(TICK_S)
        assert digests(simulation.running) == before


def test_who_leaves_is_out_at_once_and_stays_out() -> None:
    simulation = settled(6, 5)
    host = simulation.hosts[3]
    simulation.leave(host)
    simulation.run(2.0)
    simulation.kill(host)
    for _ in range(round(RULES.grace_s / TICK_S)):
        simulation.run(TICK_S)
        for other in simulation.running:
            assert other.process is not None
            assert host.id not in {member.id for member in other.process.ring.members}
    assert_agreed(simulation)
    simulation.start(host)
    simulation.run(SETTLE_S)
    assert_agreed(simulation)


def test_a_member_that_was_stopped_throws_nobody_out() -> None:
    simulation = settled(7, 4)
    host = simulation.hosts[2]
    assert host.process is not None
    before = host.process.ring.digest()
    host.is_stopped = True
    simulation.run(2 * RULES.grace_s)
    host.is_stopped = False
    for _ in range(40):
        simulation.run(TICK_S)
        assert host.process.ring.digest() == before
    simulation.run(SETTLE_S)
    assert_agreed(simulation)


def test_a_copied_cache_directory_is_an_error_that_names_both_addresses() -> None:
    simulation = settled(8, 4)
    host = simulation.hosts[3]
    before = digests(simulation.running)
    copy = Host(host.id, "copy:7070", incarnation=host.incarnation)
    simulation.hosts.append(copy)
    simulation.start(copy)
    simulation.run(SETTLE_S)
    errors = [error for each in simulation.hosts for error in each.errors]
    assert any(
        f"{host.id} is at " in error and host.address in error and copy.address in error for error in errors
    )
    assert copy.errors
    others = [other for other in simulation.running if other.id != host.id]
    assert digests(others) == before
    for other in others:
        assert other.process is not None
        member = other.process.ring.get(host.id)
        assert member is not None
        assert member.address == host.address
