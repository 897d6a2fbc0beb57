"""The ring of a view: who owns, who stands in, who is asked first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forebay.peer.member import MemberState
from forebay.peer.ring import RUN_BYTES, Ring
from tests.unit.peer._members import member, member_id, ring

PATHS = [f"shards/{number:05}.tar" for number in range(300)]


def test_an_empty_group_owns_nothing() -> None:
    empty = ring([])
    assert len(empty) == 0
    assert empty.owners("d", "p", 0, 3) == ()
    assert empty.rank_of(member_id(1), "d", "p", 0) is None
    assert empty.former_owners(member_id(1), "d", "p", 0) == ()


def test_the_unit_is_a_run() -> None:
    ten = ring(map(member, range(10)))
    for path in PATHS:
        assert ten.owners("d", path, 0) == ten.owners("d", path, RUN_BYTES - 1)
    assert {ten.owners("d", "p", number * RUN_BYTES)[0].id for number in range(300)} == {
        member_id(number) for number in range(10)
    }


def test_who_is_down_keeps_its_keys_and_is_skipped_by_those_who_want_to_read() -> None:
    whole = ring(map(member, range(5)))
    part = ring([replace(member(0), state=MemberState.DOWN), *map(member, range(1, 5))])
    assert part.down == {member_id(0)}
    assert part.digest() == whole.digest()
    without = ring(map(member, range(1, 5)))
    for path in PATHS:
        assert [m.id for m in part.owners("d", path, 0, 2)] == [m.id for m in whole.owners("d", path, 0, 2)]
        assert part.owners("d", path, 0, 2, part.down) == without.owners("d", path, 0, 2)
        assert part.owners("d", path, 0, 2, set(part.down)) == without.owners("d", path, 0, 2)


def test_who_leaves_owns_nothing_and_is_asked_first() -> None:
    leaving = replace(member(0), state=MemberState.LEAVING)
    after = ring([leaving, *map(member, range(1, 5))])
    before = ring(map(member, range(5)))
    assert after.digest() == ring(map(member, range(1, 5))).digest()
    assert after.get(leaving.id) == leaving
    moved = [path for path in PATHS if before.owners("d", path, 0)[0].id == leaving.id]
    assert moved
    for path in moved:
        owner = after.owners("d", path, 0)[0]
        assert owner == before.owners("d", path, 0, 2)[1]
        assert after.former_owners(owner.id, "d", path, 0)[0] == leaving


@pytest.mark.parametrize("zone_count", [1, 2, 3])
def test_a_newcomer_asks_the_former_owner_first(zone_count: int) -> None:
    old = [member(number, zone=f"z{number % zone_count}") for number in range(6)]
    new = member(6, zone="z0")
    before, after = ring(old), ring([*old, new])
    moved = [path for path in PATHS if after.owners("d", path, 0)[0] == new]
    assert moved
    for path in moved:
        assert after.former_owners(new.id, "d", path, 0)[0] == before.owners("d", path, 0)[0]
        assert len(after.former_owners(new.id, "d", path, 0)) <= 2


@pytest.mark.parametrize("zone_count", [1, 2, 3])
def test_an_heir_asks_who_stood_in(zone_count: int) -> None:
    old = [member(number, zone=f"z{number % zone_count}") for number in range(6)]
    before, after = ring(old), ring(old[1:])
    moved = [path for path in PATHS if before.owners("d", path, 0)[0] == old[0]]
    assert moved
    for path in moved:
        heir = after.owners("d", path, 0)[0]
        stand_in = before.owners("d", path, 0, 1, {old[0].id})[0]
        assert stand_in == heir or stand_in in after.former_owners(heir.id, "d", path, 0)


def test_zones_are_kept_apart_while_there_are_zones() -> None:
    zoned = ring(member(number, zone=f"z{number % 3}") for number in range(9))
    for path in PATHS:
        owners = zoned.owners("d", path, 0, 9)
        assert len({m.zone for m in owners[:3]}) == 3
        assert len(set(owners)) == 9


def test_ranks() -> None:
    ten = ring(map(member, range(10)))
    for rank, owner in enumerate(ten.owners("d", "p", 5, 10)):
        assert ten.rank_of(owner.id, "d", "p", 5) == rank
        assert ten.rank_of(owner.id, "d", "p", 5, within=rank) is None
        assert ten.rank_of(owner.id, "d", "p", 5, within=rank + 1) == rank
    assert ten.rank_of(member_id(99), "d", "p", 5) is None


def test_the_digest_is_of_what_placement_goes_by() -> None:
    one = ring(map(member, range(4)))
    assert one.digest() == ring(map(member, reversed(range(4))), epoch=9).digest()
    moved = [replace(member(number), address="else:1", incarnation=7, host="h") for number in range(4)]
    assert one.digest() == ring(moved).digest()
    others: list[Ring] = [
        ring(map(member, range(3))),
        ring(map(member, range(5))),
        ring([member(0, weight=2.0), *map(member, range(1, 4))]),
        ring([member(0, zone="z"), *map(member, range(1, 4))]),
    ]
    assert len({one.digest(), *(other.digest() for other in others)}) == 5
