"""A call for many blocks: one message a peer, what fails goes on to the next, and nothing hangs."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from forebay.errors import Closed, Stale, stale
from forebay.peer.batch import Batch
from forebay.peer.data.errors import PeerDown, PeerRefused
from forebay.peer.member import Member
from forebay.peer.peers import GroupLimits, Peers
from forebay.peer.ranks import Step
from forebay.remote import BlockRequest
from tests.unit.peer._fake_links import (
    BLOCK_BYTES,
    Call,
    FakeLinks,
    block,
    give_all,
    have_nothing,
    member,
    refuse_connections,
    request,
    stay_silent,
)

# Too little memory for any second message.
UNHEDGED = {"hedge_bytes_max": 1}

A, B, C = member(1), member(2), member(3)


class Site:
    """Peers, and what came of one call."""

    def __init__(self, **limits: Any) -> None:
        self.links = FakeLinks()
        self.peers = Peers(self.links, GroupLimits(**limits), self.links.time)
        self.come: list[int] = []
        self.signs = 0

    def ask(self, requests: Sequence[BlockRequest], *steps: Sequence[Step]) -> list[bytes | None]:
        """Return the blocks, None for those that did not come."""
        buffers = [memoryview(bytearray(each.length)) for each in requests]
        each_steps = steps if len(steps) == len(requests) else [steps[0]] * len(requests)
        try:
            Batch(self.peers, requests, buffers, each_steps, self.come.append, self.sign).run()
        finally:
            assert len(self.come) == len(set(self.come))
        return [bytes(buffers[index]) if index in self.come else None for index in range(len(requests))]

    def sign(self) -> None:
        self.signs += 1

    def calls(self, member: Member) -> list[Call]:
        return self.links.link(member).calls


def full(*members: Member) -> list[Step]:
    return [Step(each, False) for each in members]


def test_each_peer_gets_one_message_in_the_order_of_the_requests() -> None:
    site = Site()
    requests = [request(f"o{number}") for number in range(9)]
    steps = [full((A, B, C)[number % 3]) for number in range(9)]
    assert site.ask(requests, *steps) == [block(each) for each in requests]
    for number, asked in enumerate((A, B, C)):
        (call,) = site.calls(asked)
        assert call.requests == requests[number::3]
        assert not call.only_cached
    assert site.peers.counts.messages == 3
    assert site.peers.in_flight.messages == site.peers.in_flight.size_bytes == 0


def test_with_one_peer_everything_happens_in_the_calling_thread() -> None:
    site = Site()
    threads: list[threading.Thread] = []

    def give(call: Call) -> None:
        threads.append(threading.current_thread())
        call.give()

    site.links.link(A).does = give
    site.ask([request("a"), request("b")], full(A))
    assert threads == [threading.current_thread()]


def test_what_a_peer_could_not_be_reached_for_is_asked_of_the_next() -> None:
    site = Site()
    site.links.link(A).does = refuse_connections
    assert site.ask([request("a")], full(A, B)) == [block(request("a"))]
    assert site.peers.suspects.ids == {A.id}
    assert site.peers.counts.failures == 1


def test_only_what_is_missing_of_a_broken_answer_is_asked_of_the_next() -> None:
    def break_off(call: Call) -> None:
        call.give(0)
        call.buffers[1][:3] = b"bad"
        raise PeerDown("the checksum of a block differs")

    site = Site()
    site.links.link(A).does = break_off
    requests = [request("a"), request("b")]
    assert site.ask(requests, full(A, B)) == [block(each) for each in requests]
    assert site.calls(B)[0].requests == requests[1:]


def test_what_a_peer_has_not_though_it_was_to_bring_it_is_left_to_the_caller() -> None:
    site = Site()
    site.links.link(A).does = have_nothing
    assert site.ask([request("a")], full(A, B)) == [None]
    assert site.calls(B) == []


def test_what_a_copy_does_not_have_is_asked_of_the_owner() -> None:
    site = Site()
    site.links.link(B).does = have_nothing
    assert site.ask([request("a")], [Step(B, True), *full(A, B)]) == [block(request("a"))]
    assert [call.only_cached for call in site.calls(B)] == [True]
    assert [call.only_cached for call in site.calls(A)] == [False]


def test_a_refusal_is_no_failure_and_the_next_is_asked() -> None:
    def refuse(call: Call) -> None:
        raise PeerRefused("too much to do")

    site = Site()
    site.links.link(A).does = refuse
    assert site.ask([request("a")], full(A, B)) == [block(request("a"))]
    assert site.peers.suspects.ids == frozenset()
    assert site.peers.counts.refusals == 1


def test_a_link_that_was_closed_meanwhile_is_no_failure_and_the_next_is_asked() -> None:
    def be_closed(call: Call) -> None:
        raise Closed("the peer has another address by now")

    site = Site()
    site.links.link(A).does = be_closed
    assert site.ask([request("a")], full(A, B)) == [block(request("a"))]
    assert site.peers.suspects.ids == frozenset()


def test_what_a_peer_says_of_the_source_is_raised_after_the_others_have_come() -> None:
    def one_is_stale(call: Call) -> None:
        call.give(1)
        raise stale("d/a", "v1", "v2")

    site = Site()
    site.links.link(A).does = one_is_stale
    with pytest.raises(Stale):
        site.ask([request("a"), request("b"), request("c")], full(A, B), full(A, B), full(C))
    assert sorted(site.come) == [1, 2]
    assert site.calls(B) == []


def test_a_peer_without_a_sign_of_life_is_left_at_the_deadline() -> None:
    site = Site(peer_timeout_s=2.0, **UNHEDGED)
    site.links.link(A).does = stay_silent
    begun_s = site.links.time()
    assert site.ask([request("a")], full(A, B)) == [block(request("a"))]
    assert site.links.time() - begun_s == pytest.approx(2.0, abs=0.01)
    assert site.peers.suspects.ids == {A.id}


def test_signs_of_life_keep_a_slow_answer_alive() -> None:
    def be_slow(call: Call) -> None:
        for _ in range(20):
            call.be_silent(1.5)
            call.alive()
        call.give()

    site = Site(peer_timeout_s=2.0, **UNHEDGED)
    site.links.link(A).does = be_slow
    assert site.ask([request("a")], full(A)) == [block(request("a"))]
    assert site.signs >= 20
    assert site.peers.suspects.ids == frozenset()


def test_there_is_an_end_of_all_whatever_signs_of_life_there_are() -> None:
    def promise(call: Call) -> None:
        while True:
            call.be_silent(1.0)
            call.alive()

    site = Site(peer_timeout_s=2.0, total_timeout_s=30.0, **UNHEDGED)
    site.links.link(A).does = promise
    begun_s = site.links.time()
    assert site.ask([request("a")], full(A, B, C)) == [None]
    assert site.links.time() - begun_s == pytest.approx(30.0, abs=0.1)


def test_when_all_are_silent_nothing_comes_one_and_a_half_timeouts_later() -> None:
    site = Site(peer_timeout_s=2.0, **UNHEDGED)
    for each in (A, B, C):
        site.links.link(each).does = stay_silent
    begun_s = site.links.time()
    assert site.ask([request("a")], full(A, B, C)) == [None]
    assert site.links.time() - begun_s == pytest.approx(3.0, abs=0.01)


def test_suspects_are_not_asked() -> None:
    site = Site()
    site.peers.suspects.failed(A.id)
    assert site.ask([request("a")], full(A, B)) == [block(request("a"))]
    assert site.calls(A) == []


def test_an_error_of_the_caller_ends_the_call_and_nothing_comes_any_more() -> None:
    site = Site()
    late: list[Call] = []

    def give(call: Call) -> None:
        late.append(call)
        call.give()

    site.links.link(A).does = give

    def came(index: int) -> None:
        site.come.append(index)
        raise MemoryError

    requests = [request("a"), request("b")]
    buffers = [memoryview(bytearray(BLOCK_BYTES)) for _ in requests]
    with pytest.raises(MemoryError):
        Batch(site.peers, requests, buffers, [full(A)] * 2, came, site.sign).run()
    late[0].came(1)
    assert site.come == [0]
    assert late[0].cancelled()


def test_nothing_is_asked_beyond_the_messages_under_way() -> None:
    site = Site(messages_max=1, peer_timeout_s=0.01)
    with site.peers.in_flight.passing(1, 0.0):
        assert site.ask([request("a")], full(A, B)) == [None]
    assert site.calls(A) == site.calls(B) == []
    assert site.peers.counts.no_room == 1


# ---- second messages ----


class Hedged(Site):
    """A silent peer A and a second one B, whose answer A waits for."""

    def __init__(self, second: str = "gives", **limits: Any) -> None:
        super().__init__(**limits)
        self.second_ended = threading.Event()
        self.links.link(B).does = self._answer if second == "gives" else self._have_nothing
        self.links.link(A).does = self.wait_for_second

    def _answer(self, call: Call) -> None:
        call.give()
        self.second_ended.set()

    def _have_nothing(self, call: Call) -> None:
        self.second_ended.set()

    def wait_for_second(self, call: Call) -> None:
        """Be silent until a second message is due, let it be answered, then go on being silent."""
        call.be_silent(self.peers.latency(A.id).hedge_after_s + 0.002)
        assert self.second_ended.wait(30)
        call.be_silent(1e9)


def test_another_is_asked_beside_a_silent_peer_and_the_first_is_cancelled() -> None:
    site = Hedged()
    begun_s = site.links.time()
    assert site.ask([request("a")], full(A, B)) == [block(request("a"))]
    assert site.links.time() - begun_s < 1.0
    (second,) = site.calls(B)
    assert second.only_cached
    assert site.peers.counts.hedges == site.peers.counts.hedges_won == 1
    assert site.peers.counts.failures == 0


def test_a_first_answer_wins_over_a_second_that_is_on_its_way() -> None:
    site = Hedged()
    go = threading.Event()
    seen: list[bool] = []

    def answer_late(call: Call) -> None:
        assert go.wait(30)
        seen.append(call.cancelled())
        call.give()
        site.second_ended.set()

    def answer_after_all(call: Call) -> None:
        call.be_silent(site.peers.latency(A.id).hedge_after_s + 0.002)
        call.give()

    site.links.link(B).does = answer_late
    site.links.link(A).does = answer_after_all
    assert site.ask([request("a")], full(A, B)) == [block(request("a"))]
    go.set()
    assert site.second_ended.wait(30)
    assert seen == [True]
    assert site.come == [0]
    assert site.peers.counts.hedges_won == 0


def test_a_second_that_has_nothing_changes_nothing() -> None:
    site = Hedged(second="has nothing", peer_timeout_s=2.0)
    site.links.link(C).does = give_all
    begun_s = site.links.time()
    assert site.ask([request("a")], [*full(A), *full(B), *full(C)]) == [None]
    assert site.links.time() - begun_s == pytest.approx(2.0, abs=0.01)
    # B was asked a second time, to bring it, and has nothing either.
    assert [call.only_cached for call in site.calls(B)] == [True, False]


def test_after_a_sign_of_life_there_is_no_second() -> None:
    def be_at_work(call: Call) -> None:
        call.alive()
        call.be_silent(1.0)
        call.give()

    site = Site()
    site.links.link(A).does = be_at_work
    assert site.ask([request("a")], full(A, B)) == [block(request("a"))]
    assert site.peers.counts.hedges == 0


def test_a_peer_that_is_silent_again_and_again_while_another_answers_is_suspected() -> None:
    site = Hedged()
    for number in range(3):
        assert A.id not in site.peers.suspects.ids
        site.come.clear()
        site.second_ended.clear()
        assert site.ask([request("a", number)], full(A, B)) == [block(request("a", number))]
    assert site.peers.suspects.ids == {A.id}


def test_seconds_need_room_in_memory_and_are_left_out_else() -> None:
    site = Site(hedge_bytes_max=BLOCK_BYTES - 1, peer_timeout_s=2.0)
    site.links.link(A).does = stay_silent
    assert site.ask([request("a")], full(A, B)) == [block(request("a"))]
    assert [call.only_cached for call in site.calls(B)] == [False]
