"""What placement promises, for any group: balance, little movement, weights, zones, no order of members."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.peer.member import Member
from forebay.peer.ring import Ring
from tests.unit.peer._members import member, ring

KEYS = 1_000_000
PATHS = [f"shards/{number:06}.tar" for number in range(400)]

groups = st.lists(
    st.builds(
        member,
        st.integers(0, 10_000),
        weight=st.sampled_from([0.25, 1.0, 1.0, 1.0, 3.0]),
        zone=st.sampled_from(["", "a", "b", "c"]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda each: each.id,
)


def owner_of(placed: Ring, path: str) -> Member:
    return placed.owners("data", path, 0)[0]


def shares(placed: Ring) -> Counter[str]:
    return Counter(owner_of(placed, f"train/{number}.jpg").id for number in range(KEYS))


def test_a_hundred_equal_members_own_as_much_to_a_twentieth() -> None:
    counts = shares(ring(map(member, range(100))))
    assert len(counts) == 100
    assert max(counts.values()) <= 1.05 * KEYS / 100


def test_weights_are_honoured_to_a_twentieth() -> None:
    members = [member(number, weight=[0.5, 1.0, 2.0, 4.0][number % 4]) for number in range(20)]
    total = sum(each.weight for each in members)
    counts = shares(ring(members))
    for each in members:
        assert counts[each.id] == pytest.approx(KEYS * each.weight / total, rel=0.05)


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_who_comes_or_goes_moves_its_own_keys_alone_and_no_more_than_its_share(weight: float) -> None:
    old = [member(number) for number in range(99)]
    new = member(99, weight=weight)
    before, after = ring(old), ring([*old, new])
    moved = 0
    for number in range(KEYS // 4):
        path = f"train/{number}.jpg"
        one, other = owner_of(before, path), owner_of(after, path)
        assert one == other or other == new
        moved += one != other
    assert moved <= 1.05 * (KEYS // 4) * weight / (99 + weight)


@given(group=groups, seed=st.integers(0, 1 << 32))
def test_the_order_of_members_means_nothing(group: list[Member], seed: int) -> None:
    shuffled = random.Random(seed).sample(group, len(group))
    one, other = ring(group), ring(shuffled)
    assert one.digest() == other.digest()
    for path in PATHS[:50]:
        assert one.owners("data", path, 0, 3) == other.owners("data", path, 0, 3)


@given(group=groups, count=st.integers(0, 15))
def test_owners_are_distinct_and_of_as_many_zones_as_there_are(group: list[Member], count: int) -> None:
    placed = ring(group)
    zone_count = len({each.zone for each in group})
    for path in PATHS[:50]:
        owners = placed.owners("data", path, 0, count)
        assert len(owners) == len({each.id for each in owners}) == min(count, len(group))
        assert len({each.zone for each in owners}) == min(count, zone_count)


@given(group=groups, which=st.integers(0, 11))
def test_when_any_member_goes_its_keys_alone_move(group: list[Member], which: int) -> None:
    gone = group[which % len(group)]
    before, after = ring(group), ring(each for each in group if each != gone)
    for path in PATHS:
        owners = before.owners("data", path, 0)
        if owners[0] != gone:
            assert after.owners("data", path, 0) == owners
        else:
            assert after.owners("data", path, 0) == before.former_owners(gone.id, "data", path, 0)[:1]


@given(group=groups, data=st.data())
@settings(max_examples=50)
def test_who_is_skipped_changes_nothing_for_the_others(group: list[Member], data: st.DataObject) -> None:
    skipped = data.draw(st.frozensets(st.sampled_from([each.id for each in group])))
    placed = ring(group)
    for path in PATHS[:100]:
        everybody = placed.owners("data", path, 0, len(group))
        expected = tuple(each for each in everybody if each.id not in skipped)
        assert placed.owners("data", path, 0, len(group), skipped) == expected
        assert placed.owners("data", path, 0, 1, skipped) == expected[:1]
