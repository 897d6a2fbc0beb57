"""The rules of membership one by one: what is told to one member, and what it then shows and asks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from forebay.errors import ConfigError
from forebay.peer.member import EPOCH_MAX, Member, MemberState, View
from forebay.peer.membership import Answer, Membership, Rules
from forebay.peer.refresh import Rings
from forebay.testing.clock import ManualClock
from tests.unit.peer._members import member, member_id

GRACE_S = 30.0
RULES = Rules(probe_interval_s=1.0, misses=2, grace_s=GRACE_S)
ME = member(0)


class Driven:
    """One member, and hands that answer for its peers."""

    def __init__(self, seeds: list[str] | None = None, me: Member = ME) -> None:
        self.clock = ManualClock()
        self.membership = Membership(me, "g", seeds or [], clock=self.clock, rules=RULES)

    def answer(self, who: Member, view: View | None = None, at: str | None = None, group: str = "g") -> None:
        """Let who answer a probe, with a view of itself and this member unless another is given."""
        shown = View.of(1, {ME.id: ME, who.id: who}.values()) if view is None else view
        self.membership.answered(at or who.address, Answer(group, who, shown))

    def silence(self, who: Member, seconds: float) -> None:
        """Let a peer miss probes for so long."""
        for _ in range(round(seconds)):
            self.membership.no_answer(who.address)
            self.clock.advance(1.0)

    def states(self) -> dict[str, MemberState]:
        return {m.id: m.state for m in self.membership.view.members if m.id != ME.id}

    def state(self, who: Member) -> MemberState | None:
        return self.states().get(who.id)


def test_alone_it_is_a_group_of_one() -> None:
    driven = Driven()
    assert driven.membership.view.members == (ME,)
    assert driven.membership.view.epoch == 1
    assert driven.membership.due() == []


def test_seeds_are_probed_once_an_interval_and_not_itself() -> None:
    driven = Driven(["b:1", "a:1", ME.address])
    assert driven.membership.due() == ["a:1", "b:1"]
    assert driven.membership.due() == []
    driven.clock.advance(1.0)
    assert driven.membership.due() == ["a:1", "b:1"]
    driven.membership.seed(["c:1"])
    assert driven.membership.due() == ["c:1"]


def test_a_seed_that_is_no_address_is_refused() -> None:
    with pytest.raises(ConfigError, match="'nonsense'"):
        Driven(["nonsense"])


def test_who_answers_is_up_and_the_epoch_grows() -> None:
    driven = Driven()
    driven.answer(member(1), View(41, (member(1),)))
    assert driven.states() == {member_id(1): MemberState.UP}
    assert driven.membership.view.epoch == 42
    driven.answer(member(1), View(41, (member(1),)))
    assert driven.membership.view.epoch == 42


def test_an_equal_view_with_a_greater_epoch_is_taken_over() -> None:
    driven = Driven()
    driven.answer(member(1))
    driven.answer(member(1), View(99, driven.membership.view.members))
    assert driven.membership.view.epoch == 99
    assert driven.membership.ring.epoch == 99


def test_one_miss_is_asked_about_again_at_once_and_two_make_a_peer_down() -> None:
    driven = Driven()
    driven.answer(member(1))
    assert driven.membership.due() == [member(1).address]
    driven.membership.no_answer(member(1).address)
    assert driven.state(member(1)) is MemberState.UP
    assert driven.membership.due() == [member(1).address]
    driven.membership.no_answer(member(1).address)
    assert driven.state(member(1)) is MemberState.DOWN
    assert driven.membership.due() == []


def test_who_is_down_keeps_its_keys_for_the_grace_and_no_longer() -> None:
    driven = Driven()
    driven.answer(member(1))
    digest = driven.membership.ring.digest()
    driven.silence(member(1), GRACE_S)
    assert driven.membership.ring.digest() == digest
    driven.silence(member(1), 3)
    assert driven.states() == {}
    assert driven.membership.ring.digest() != digest


def test_who_comes_back_in_time_moves_nothing() -> None:
    driven = Driven()
    driven.answer(member(1))
    digest = driven.membership.ring.digest()
    driven.silence(member(1), GRACE_S - 1)
    driven.answer(member(1, incarnation=2, address="elsewhere:7070"))
    assert driven.state(member(1)) is MemberState.UP
    assert driven.membership.ring.digest() == digest


def test_who_is_reached_by_a_peer_stays_though_down() -> None:
    driven = Driven()
    driven.answer(member(1))
    driven.answer(member(2))
    driven.silence(member(2), 2)
    for _ in range(100):
        driven.answer(member(1), View.of(1, [ME, member(1), member(2)]))
        driven.silence(member(2), 1)
        assert driven.state(member(2)) is MemberState.DOWN
    seen_down = replace(member(2), state=MemberState.DOWN)
    for _ in range(round(GRACE_S) + 2):
        driven.answer(member(1), View.of(1, [ME, member(1), seen_down]))
        driven.silence(member(2), 1)
    assert driven.state(member(2)) is None


def test_who_is_only_told_of_is_down_until_it_answers() -> None:
    driven = Driven()
    driven.answer(member(1), View.of(1, [ME, member(1), member(2)]))
    assert driven.state(member(2)) is MemberState.DOWN
    assert member(2).address in driven.membership.due()
    driven.answer(member(2))
    assert driven.state(member(2)) is MemberState.UP


def test_being_down_in_a_view_brings_nobody_in() -> None:
    driven = Driven()
    driven.answer(member(1), View.of(1, [ME, member(1), replace(member(2), state=MemberState.DOWN)]))
    assert driven.state(member(2)) is None


def test_an_announced_member_is_in_when_it_answers() -> None:
    driven = Driven()
    driven.membership.announced(member(1))
    assert driven.states() == {}
    assert driven.membership.due() == [member(1).address]
    driven.answer(member(1))
    assert driven.state(member(1)) is MemberState.UP


def test_an_announcement_without_an_answer_is_forgotten() -> None:
    driven = Driven()
    driven.membership.announced(member(1))
    driven.clock.advance(GRACE_S + 1)
    assert driven.membership.due() == []


def test_who_leaves_has_no_keys_and_goes_at_the_first_silence() -> None:
    driven = Driven()
    driven.answer(member(1))
    driven.membership.announced(replace(member(1), state=MemberState.LEAVING))
    assert driven.state(member(1)) is MemberState.LEAVING
    assert [m.id for m in driven.membership.ring.members] == [ME.id]
    driven.answer(member(1))  # sent before it said so
    assert driven.state(member(1)) is MemberState.LEAVING
    driven.silence(member(1), 2)
    assert driven.states() == {}


def test_a_late_view_does_not_bring_back_who_left() -> None:
    driven = Driven()
    driven.answer(member(1))
    driven.answer(member(2))
    driven.membership.announced(replace(member(1), state=MemberState.LEAVING))
    driven.silence(member(1), 2)
    driven.answer(member(2), View.of(1, [ME, member(1), member(2)]))
    assert driven.state(member(1)) is None
    driven.answer(member(2), View.of(1, [ME, member(1, incarnation=2), member(2)]))
    assert driven.state(member(1)) is MemberState.DOWN
    driven.answer(member(1, incarnation=2))
    assert driven.state(member(1)) is MemberState.UP


def test_that_somebody_leaves_is_passed_on() -> None:
    driven = Driven()
    driven.answer(member(1))
    driven.answer(member(2))
    leaving = replace(member(1), state=MemberState.LEAVING)
    driven.answer(member(2), View.of(1, [ME, leaving, member(2)]))
    assert driven.state(member(1)) is MemberState.LEAVING


def test_this_member_leaves() -> None:
    driven = Driven()
    driven.answer(member(1))
    word = driven.membership.leave()
    assert word == replace(ME, state=MemberState.LEAVING)
    assert word in driven.membership.view.members
    assert [m.id for m in driven.membership.ring.members] == [member_id(1)]
    driven.answer(member(1))
    assert driven.membership.unaware() == [member(1).address]


def test_who_does_not_know_this_member_is_told_once() -> None:
    driven = Driven()
    driven.answer(member(1), View.of(1, [member(1)]))
    driven.answer(member(2), View.of(1, [replace(ME, incarnation=99), member(2)]))
    driven.answer(member(3))
    assert driven.membership.unaware() == sorted([member(1).address, member(2).address])
    assert driven.membership.unaware() == []


def test_another_group_is_refused_and_why_is_kept() -> None:
    driven = Driven([member(1).address])
    driven.answer(member(1), group="other")
    assert driven.states() == {}
    reason = driven.membership.refusals[member(1).address]
    assert reason == "it is of group 'other', not of 'g'"
    driven.answer(member(1))
    assert driven.membership.refusals == {}


def test_a_peer_that_is_refused_goes_like_one_that_is_silent() -> None:
    driven = Driven()
    driven.answer(member(1))
    for _ in range(round(GRACE_S) + 3):
        driven.membership.refused(member(1).address, "protocol 2, not 1")
        driven.clock.advance(1.0)
    assert driven.states() == {}
    driven.membership.due()
    assert driven.membership.refusals == {}


def test_two_that_answer_with_one_id_are_an_error_that_names_both() -> None:
    driven = Driven()
    copy = member(1, incarnation=9, address="copy:7070")
    driven.answer(member(1))
    driven.answer(copy)
    assert driven.membership.due() == [member(1).address]  # the one who was there is asked first
    with pytest.raises(ConfigError, match=rf"{member_id(1)} is at host-1:7070 and at copy:7070"):
        driven.answer(member(1))
    assert driven.membership.ring.get(member_id(1)) == member(1)


def test_who_moved_is_where_it_answers_once_its_old_address_is_silent() -> None:
    driven = Driven()
    moved = member(1, incarnation=2, address="new:7070")
    driven.answer(member(1))
    driven.answer(moved)
    driven.membership.no_answer(member(1).address)
    assert driven.membership.ring.get(member_id(1)) == moved
    assert driven.state(member(1)) is MemberState.UP


def test_another_member_at_a_peer_s_address_is_the_end_of_that_peer() -> None:
    driven = Driven()
    driven.answer(member(1))
    other = member(2, address=member(1).address)
    for _ in range(round(GRACE_S) + 3):
        driven.answer(other)
        driven.clock.advance(1.0)
    assert driven.states() == {member_id(2): MemberState.UP}


def test_its_own_id_elsewhere_is_an_error_that_names_both() -> None:
    driven = Driven(["copy:7070"])
    copy = replace(ME, address="copy:7070", incarnation=2)
    with pytest.raises(ConfigError, match=rf"{ME.id} is at {ME.address} and at copy:7070"):
        driven.answer(copy)
    with pytest.raises(ConfigError, match="at copy:7070"):
        driven.membership.announced(copy)


def test_another_name_of_its_own_is_no_peer_and_probed_once() -> None:
    driven = Driven(["alias:7070"])
    assert driven.membership.due() == ["alias:7070"]
    driven.answer(ME, at="alias:7070")
    assert driven.states() == {}
    driven.clock.advance(5.0)
    assert driven.membership.due() == []


def test_who_answers_at_another_name_is_in_once_it_answers_at_its_own() -> None:
    driven = Driven(["alias:7070"])
    driven.membership.due()
    driven.answer(member(1), at="alias:7070")
    assert driven.states() == {}
    assert driven.membership.due() == [member(1).address]
    driven.answer(member(1))
    driven.clock.advance(5.0)
    assert driven.membership.due() == [member(1).address]


def test_a_large_group_is_probed_more_slowly() -> None:
    driven = Driven([f"host-{number}:1" for number in range(300)])
    assert len(driven.membership.due()) == 300
    driven.clock.advance(2.9)
    assert driven.membership.due() == []
    driven.clock.advance(0.2)
    assert len(driven.membership.due()) == 300


def test_the_greatest_epoch_freezes_no_view() -> None:
    driven, other, newcomer = Driven(), member(1), member(2)
    reader = Rings()
    driven.answer(other, View.of(EPOCH_MAX, [ME, other]))
    reader.take(driven.membership.view)
    driven.answer(newcomer)
    driven.silence(other, 3)
    told = View.from_message(driven.membership.view.to_message())
    assert driven.states() == {other.id: MemberState.DOWN, newcomer.id: MemberState.UP}
    assert reader.take(told)
    assert reader.ring is not None
    assert reader.ring.view.members == driven.membership.view.members
