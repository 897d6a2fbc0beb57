"""The parts of a group by themselves: ranks, suspects, hedging, deadlines, limits, refreshing the view."""

from __future__ import annotations

import pytest

from forebay.peer.hedge import DELAY_S_MIN, DELAY_S_UNKNOWN, HedgeBudget, Latency
from forebay.peer.in_flight import InFlight
from forebay.peer.member import View
from forebay.peer.patience import Patience
from forebay.peer.peers import GroupLimits, Peers
from forebay.peer.ranks import Ranks
from forebay.peer.refresh import VIEW_INTERVAL_S, Refresh, Rings
from forebay.peer.ring import RUN_BYTES, Ring
from forebay.peer.suspects import PROBE_AFTER_S, PROBE_AFTER_S_MAX, Suspects
from tests.unit.peer._fake_links import (
    Call,
    FakeLinks,
    FakeTime,
    member,
    refuse_connections,
    stay_silent,
    view,
)

NOBODY: frozenset[str] = frozenset()

# ---- ranks ----


def ranks(own: int | None = None, host: str = "here", busy: dict[str, float] | None = None) -> Ranks:
    own_id = None if own is None else member(own).id
    return Ranks(own_id, host, lambda member_id: (busy or {}).get(member_id, 0.0))


def test_the_owner_is_asked_and_then_those_behind_it() -> None:
    ring = Ring(view(5))
    steps = ranks().steps(ring, "d", "a", 0, 1, NOBODY)
    assert [step.member for step in steps] == list(ring.owners("d", "a", 0, 3))
    assert not any(step.only_cached for step in steps)


def test_those_behind_move_up_for_those_who_are_skipped() -> None:
    ring = Ring(view(5))
    order = ring.owners("d", "a", 0, 5)
    steps = ranks().steps(ring, "d", "a", 0, 1, frozenset({order[0].id, order[2].id}))
    assert [step.member for step in steps] == [order[1], order[3], order[4]]


def test_a_host_asks_only_those_before_itself() -> None:
    ring = Ring(view(5))
    order = ring.owners("d", "a", RUN_BYTES, 5)
    own = [member(number).id for number in range(5)].index(order[1].id)
    steps = ranks(own).steps(ring, "d", "a", RUN_BYTES, 1, NOBODY)
    assert [step.member for step in steps] == [order[0]]
    assert ranks(own).steps(ring, "d", "a", RUN_BYTES, 1, frozenset({order[0].id})) == []


def test_of_copies_the_least_busy_is_asked_first_for_what_it_has() -> None:
    ring = Ring(view(5))
    first, second, third = ring.owners("d", "a", 0, 3)
    steps = ranks(busy={first.id: 3.0, second.id: 2.0}).steps(ring, "d", "a", 0, 2, NOBODY)
    assert [(step.member, step.only_cached) for step in steps] == [
        (second, True),
        (first, False),
        (second, False),
        (third, False),
    ]


def test_of_copies_the_one_on_this_host_goes_before_all() -> None:
    members = [member(number, host=f"h{number}") for number in range(5)]
    ring = Ring(View.of(1, members))
    first, second = ring.owners("d", "a", 0, 2)
    chosen = ranks(host=second.host, busy={second.id: 9.0}).steps(ring, "d", "a", 0, 2, NOBODY)
    assert (chosen[0].member, chosen[0].only_cached) == (second, True)
    chosen = ranks(host=first.host, busy={first.id: 9.0}).steps(ring, "d", "a", 0, 2, NOBODY)
    assert (chosen[0].member, chosen[0].only_cached) == (first, False)


# ---- suspects ----


def test_suspects_are_skipped_at_once_and_probed_with_growing_pauses() -> None:
    time = FakeTime()
    suspects = Suspects(time)
    assert suspects.failed("a")
    assert suspects.ids == {"a"}
    pauses = []
    for _ in range(8):
        pauses.append(suspects.due_in_s() or 0.0)
        time.advance(pauses[-1])
        assert suspects.due() == ["a"]
        assert not suspects.failed("a")
    assert pauses == pytest.approx([min(PROBE_AFTER_S * 2**number, PROBE_AFTER_S_MAX) for number in range(8)])
    suspects.answered("a")
    assert suspects.ids == NOBODY
    assert suspects.due_in_s() is None


def test_an_answer_between_makes_slow_ones_well() -> None:
    suspects = Suspects(FakeTime())
    for _ in range(5):
        assert not suspects.slow("a")
        assert not suspects.slow("a")
        suspects.answered("a")
    assert not suspects.slow("a")
    assert not suspects.slow("a")
    assert suspects.slow("a")


# ---- hedging, deadlines, limits ----


def test_a_second_is_due_after_what_95_of_100_answers_take() -> None:
    latency = Latency()
    assert latency.hedge_after_s == DELAY_S_UNKNOWN
    for number in range(96):
        latency.note(0.2 if number % 12 == 0 else 0.01)
    assert latency.hedge_after_s == pytest.approx(0.2)
    assert latency.median_s == pytest.approx(0.01)
    for _ in range(128):
        latency.note(0.0001)
    assert latency.hedge_after_s == DELAY_S_MIN


def test_seconds_are_a_share_of_all_requests() -> None:
    budget = HedgeBudget()
    granted = sum(budget.spend() for _ in range(1000))
    assert granted == 20
    for _ in range(1000):
        budget.earn()
        granted += budget.spend()
    assert granted == pytest.approx(120, abs=1)


def test_the_first_peer_has_the_whole_timeout_and_the_others_half_of_it_together() -> None:
    time = FakeTime()
    patience = Patience(2.0, 100.0, time)
    for allowed_s in (2.0, 1.0):
        assert not patience.is_over
        deadline = patience.deadline()
        assert (deadline.silence_s, deadline.end_s) == (allowed_s, 1_100.0)
        time.advance(allowed_s)
        patience.spend(allowed_s)
    assert patience.is_over


def test_messages_under_way_are_bounded_by_number_and_bytes() -> None:
    bound = InFlight(2, 100)
    with bound.passing(1000, 0.0) as alone, bound.passing(1, 0.0) as beside:
        assert alone
        assert not beside
    with bound.passing(60, 0.0) as one, bound.passing(50, 0.0) as two, bound.passing(40, 0.0) as three:
        assert (one, two, three) == (True, False, True)
        assert (bound.messages, bound.size_bytes) == (2, 100)
        with bound.passing(0, 0.0) as four:
            assert not four
    assert (bound.messages, bound.size_bytes) == (0, 0)


# ---- the view ----


class Refreshed:
    """A process with seeds, and the view that it has."""

    def __init__(self, *seeds: str) -> None:
        self.links = FakeLinks()
        self.peers = Peers(self.links, GroupLimits(), self.links.time)
        self.rings = Rings(self.links.time)
        self.refresh = Refresh(seeds, self.peers, self.rings)

    def turn_when_due(self) -> None:
        self.links.time.advance(self.refresh.turn())
        self.refresh.turn()

    @property
    def view(self) -> View:
        assert self.rings.ring is not None
        return self.rings.ring.view

    def say(self, said: View) -> None:
        """Let all members have this view."""
        for each in said.members:
            self.links.link(each).said = said


def test_the_first_view_comes_from_whichever_seed_answers() -> None:
    site = Refreshed("h1:1", "h2:1")
    assert site.refresh.turn() < VIEW_INTERVAL_S
    assert site.rings.ring is None
    assert sorted(site.links.greeted) == ["h1:1", "h2:1"]
    site.links.seeds["h2:1"] = view(3)
    site.turn_when_due()
    assert site.view == view(3)


def test_later_views_come_from_members_and_from_seeds_if_none_answers() -> None:
    site = Refreshed("h1:1")
    site.links.seeds["h1:1"] = view(3)
    site.say(view(4, epoch=2))
    site.turn_when_due()
    assert site.view == view(4, epoch=2)
    assert site.links.greeted == ["h1:1"]
    for each in site.view.members:
        site.links.link(each).does = refuse_connections
    site.links.seeds["h1:1"] = view(2, epoch=3)
    site.turn_when_due()
    assert site.view == view(2, epoch=3)
    assert {each.id for each in site.view.members} >= site.peers.suspects.ids


def test_who_gives_no_view_for_a_moment_is_no_suspect_and_another_is_asked() -> None:
    site = Refreshed("h1:1")
    site.links.seeds["h1:1"] = view(3)
    site.refresh.turn()
    site.say(view(3, epoch=2))
    silent, asked = site.view.members[0], []

    def be_silent(call: Call) -> None:
        asked.append(call.deadline.silence_s)
        stay_silent(call)

    site.links.link(silent).does = be_silent
    for _ in range(6):
        site.turn_when_due()
    assert site.view == view(3, epoch=2)
    assert asked
    assert max(asked) < site.peers.limits.peer_timeout_s
    assert site.peers.suspects.ids == NOBODY


def test_an_older_view_counts_only_if_all_have_it() -> None:
    site = Refreshed()
    site.refresh.tell(view(3, epoch=9))
    assert not site.rings.take(view(2, epoch=8))
    assert not site.rings.take(view(2, epoch=8))
    assert site.view == view(3, epoch=9)
    assert site.rings.take(view(2, epoch=8))


def test_a_suspect_is_asked_again_once_a_probe_was_answered() -> None:
    site = Refreshed("h1:1")
    site.refresh.tell(view(3))
    site.say(view(3))
    suspect = site.view.members[0]
    site.links.link(suspect).does = refuse_connections
    site.peers.failed(suspect, OSError("down"))
    for _ in range(3):
        site.turn_when_due()
        assert site.peers.suspects.ids == {suspect.id}
    site.links.link(suspect).does = lambda call: None
    for _ in range(4):
        site.turn_when_due()
    assert site.peers.suspects.ids == NOBODY


def test_many_silent_suspects_hold_up_neither_the_view_nor_each_other() -> None:
    site = Refreshed()
    site.refresh.tell(view(30))
    site.refresh = Refresh((), site.peers, site.rings)
    site.say(view(30))
    asked: set[str] = set()
    for each in site.view.members[:20]:
        site.peers.failed(each, OSError("down"))

        def be_silent(call: Call, member_id: str = each.id) -> None:
            asked.add(member_id)
            stay_silent(call)

        site.links.link(each).does = be_silent
    begun_s = site.links.time()
    epoch = 1
    while site.links.time() - begun_s < 60.0:
        epoch += 1
        site.say(view(30, epoch=epoch))
        told_s = site.links.time()
        while site.view.epoch < epoch:
            site.links.time.advance(site.refresh.turn())
        assert site.links.time() - told_s <= 2 * VIEW_INTERVAL_S
    assert len(asked) == 20


def test_a_suspect_that_is_down_for_the_group_is_not_probed_until_it_is_up() -> None:
    site = Refreshed()
    site.refresh.tell(view(3, down=(0,)))
    suspect = site.view.members[0]
    probes: list[Call] = []
    site.say(view(3))
    site.links.link(suspect).does = probes.append
    site.peers.failed(suspect, OSError("down"))
    for _ in range(5):
        site.turn_when_due()
    assert not probes
    assert site.peers.suspects.ids == {suspect.id}
    site.refresh.tell(view(3, epoch=2))
    begun_s = site.links.time()
    while site.peers.suspects.ids:
        site.turn_when_due()
    assert len(probes) == 1
    assert site.links.time() - begun_s <= 2 * VIEW_INTERVAL_S


def test_members_that_left_the_view_leave_no_links_behind() -> None:
    site = Refreshed()
    for each in view(3).members:
        site.links.link(each)
    site.refresh.tell(view(3))
    site.refresh.tell(view(2, epoch=2))
    assert site.links.by_id.keys() == {member(0).id, member(1).id}


def test_a_view_of_ones_own_membership_is_not_asked_for() -> None:
    site = Refreshed("h1:1")
    site.refresh.tell(view(3))
    site.turn_when_due()
    assert site.links.greeted == []
    changed_s = site.rings.changed_s
    site.links.time.advance(5.0)
    site.refresh.tell(view(3, epoch=2))
    assert site.rings.changed_s == changed_s
    site.refresh.tell(view(3, epoch=3, down=(1,)))
    assert site.rings.changed_s == site.links.time()
