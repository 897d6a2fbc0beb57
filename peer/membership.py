"""Who is in the group, as one member sees it: probe results and announcements in, views with epochs out.

A state machine: it has no thread, opens no connection and waits for nothing; whoever drives it says what was
answered and asks what is to be probed. There is no vote. Its rules:

1. Each member probes all others. What it marks UP or DOWN is what itself has seen, never what it was told.
2. A peer that does not answer is DOWN at once: readers skip it, and its keys stay its own. It leaves the view
   when nobody has reached it for `grace_s`: neither this member nor, by their views, those whom it reaches.
   So a restart moves nothing, and a cut between two members alone does not part their rings.
3. A peer enters the view when it answers at the address that it gives as its own, or when somebody who is
   reached marks it UP. Being DOWN in somebody's view brings nobody back.
4. A member that leaves says so; that is passed on, holds for that start of it (incarnation), and gives up
   its keys at once. What others still say of that start is void.
5. Where it answers decides where a member is. At two addresses at once: an error, and who was there stays.
6. An epoch is greater than all that were seen when the view changed. Equal views take the greater one, so
   they end with the same.

A member that was stopped finds no peer overdue when it goes on: only an unanswered probe ends anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from forebay.clock import NS_PER_S, Clock
from forebay.errors import ConfigError
from forebay.peer._placement import MEMBERS_MAX
from forebay.peer.addresses import Addresses
from forebay.peer.member import EPOCH_MAX, Member, MemberState, View, check_address, two_addresses
from forebay.peer.ring import Ring

# For how many times the grace a departed start of a member is remembered, lest a late view revives it.
_DEPARTED_GRACES: Final = 10


@dataclass(frozen=True, slots=True)
class Rules:
    """When peers are probed, and what silence means."""

    probe_interval_s: float = 1.0
    misses: int = 2  # unanswered probes, one right after the other, that make a peer DOWN
    grace_s: float = 30.0


class Answer(NamedTuple):
    """What a probe brings: who answers there, of which group, and its view."""

    group: str
    member: Member
    view: View


@dataclass(slots=True)
class _Peer:
    member: Member  # as it is shown; its state says whether it is reached
    heard_ns: int  # when it was last reached by anybody we know of, or became DOWN
    misses: int = 0
    claim: Member | None = None  # itself, answering at another address

    @property
    def is_reached(self) -> bool:
        return self.member.state is not MemberState.DOWN


class Membership:
    """The group as one member sees it. Threads: owner only; what view and ring return never changes."""

    def __init__(
        self, me: Member, group: str, seeds: Iterable[str], *, clock: Clock, rules: Rules | None = None
    ) -> None:
        """Begin alone. Raises: ConfigError (a seed that is no address)."""
        rules = Rules() if rules is None else rules
        self._me = me
        self._group: Final = group
        self._clock: Final = clock
        self._misses: Final = rules.misses
        self._grace_ns: Final = int(rules.grace_s * NS_PER_S)
        self._peers: dict[str, _Peer] = {}
        self._departed: dict[str, tuple[int, int]] = {}  # incarnation, and until when that is remembered
        self._addresses: Final = Addresses(me.address, rules.probe_interval_s, rules.grace_s)
        self._unaware: set[str] = set()
        self._refusals: dict[str, str] = {}
        self._epoch_seen = 0
        self._is_changed = True
        self._view = View(0, ())
        self._ring: Ring | None = None
        self.seed(seeds)
        self._show()

    @property
    def view(self) -> View:
        """The view, this member included."""
        return self._view

    @property
    def ring(self) -> Ring:
        """The ring of the view."""
        if self._ring is None:
            self._ring = Ring(self._view)
        return self._ring

    @property
    def refusals(self) -> Mapping[str, str]:
        """Why an address is no peer, by address: another group, another protocol, ..."""
        return MappingProxyType(self._refusals)

    @property
    def addresses(self) -> set[str]:
        """All addresses that are probed now and then: of peers, seeds, and what was heard of lately."""
        return self._peer_addresses() | self._addresses.known

    def seed(self, addresses: Iterable[str]) -> None:
        """Probe these whatever happens, instead of the former ones: a static list, or what a name stands for.

        Raises: ConfigError (not host:port).
        """
        found = set(addresses)
        for address in found:
            check_address(address)
        self._addresses.seed(found)

    def due(self) -> list[str]:
        """Return the addresses to probe now; the answer or its absence is told before they are due again."""
        now_ns = self._clock.boot_ns()
        self._departed = {name: entry for name, entry in self._departed.items() if entry[1] > now_ns}
        at, wanted = self._peer_addresses(), self.addresses
        self._refusals = {address: why for address, why in self._refusals.items() if address in wanted}
        return self._addresses.due(at, self._is_reached, now_ns)

    def unaware(self) -> list[str]:
        """Return the addresses of peers who do not know this member as it is now, once: announce it there."""
        unaware, self._unaware = sorted(self._unaware), set()
        return unaware

    def answered(self, address: str, answer: Answer) -> None:
        """Take what a probe brought.

        Raises: ConfigError (a member id at two addresses, this member's own or another's; who was there
        before stays).
        """
        now_ns, member = self._clock.boot_ns(), answer.member
        if answer.group != self._group:
            self.refused(address, f"it is of group {answer.group!r}, not of {self._group!r}")
            return
        self._refusals.pop(address, None)
        if member.id == self._me.id:
            self._answered_as_me(address, member)
            return
        problem = None
        if member.address == address:
            problem = self._reached(member, now_ns)
        else:
            self._addresses.alias(address, member.id)
            self._addresses.hear_of(member.address, now_ns)
        if not any(_is_same_start(other, self._me) for other in answer.view.members):
            self._unaware.add(address)
        self._merge(member.id, answer.view, now_ns)
        self._show()
        if problem is not None:
            raise ConfigError(problem)

    def no_answer(self, address: str) -> None:
        """Take that a probe brought nothing in its time."""
        now_ns = self._clock.boot_ns()
        for peer in self._at(address):
            self._missed(peer, now_ns)
        self._show()

    def refused(self, address: str, reason: str) -> None:
        """Take that somebody answers there who is no peer, and why."""
        self._refusals[address] = reason
        self.no_answer(address)

    def announced(self, member: Member) -> None:
        """Take a member's own word that it has come or leaves; it has come when it answers, too.

        Raises: ConfigError (it has this member's id).
        """
        now_ns = self._clock.boot_ns()
        if member.id == self._me.id:
            self._answered_as_me(member.address, member)
        elif member.state is MemberState.LEAVING:
            self._leaves(member, now_ns)
        else:
            self._addresses.hear_of(member.address, now_ns)
            self._addresses.hurry(member.address)
        self._show()

    def leave(self) -> Member:
        """Give this member's keys up; returns what is to be announced to all others."""
        self._me = replace(self._me, state=MemberState.LEAVING)
        self._is_changed = True
        self._show()
        return self._me

    # ---- one peer ----

    def _answered_as_me(self, address: str, member: Member) -> None:
        if member.incarnation == self._me.incarnation:
            self._addresses.alias(address, member.id)
        elif member.address != self._me.address:
            raise ConfigError(two_addresses(member.id, self._me.address, member.address))

    def _reached(self, member: Member, now_ns: int) -> str | None:
        """Take that a member answers at its own address; returns what is wrong with that."""
        for other in self._at(member.address):
            if other.member.id != member.id:
                self._missed(other, now_ns)
        peer = self._peers.get(member.id)
        if peer is None:
            if self._departed.get(member.id, (-1, 0))[0] != member.incarnation:
                self._add(member, member.state, now_ns)
            return None
        if peer.is_reached and peer.member.address != member.address:
            # A restart elsewhere, or two at once: whether it still answers where it was will tell.
            peer.claim = member
            self._addresses.hurry(peer.member.address)
            return None
        claim = peer.claim
        self._now_is(peer, member, now_ns)
        return None if claim is None else two_addresses(member.id, member.address, claim.address)

    def _now_is(self, peer: _Peer, member: Member, now_ns: int) -> None:
        """Take what a peer says of itself. One that has said that it leaves does so until it starts anew."""
        is_same_start = peer.member.incarnation == member.incarnation
        is_leaving = member.state is MemberState.LEAVING or (
            is_same_start and peer.member.state is MemberState.LEAVING
        )
        peer.heard_ns, peer.misses, peer.claim = now_ns, 0, None
        self._set(peer, member, MemberState.LEAVING if is_leaving else MemberState.UP)

    def _missed(self, peer: _Peer, now_ns: int) -> None:
        peer.misses += 1
        if peer.claim is not None:
            self._now_is(peer, peer.claim, now_ns)
        elif not peer.is_reached:
            if now_ns - peer.heard_ns >= self._grace_ns:
                self._remove(peer)
        elif peer.misses < self._misses:
            self._addresses.hurry(peer.member.address)
        elif peer.member.state is MemberState.LEAVING:
            self._remember_departure(peer.member, now_ns)
            self._remove(peer)
        else:
            peer.heard_ns = now_ns
            self._set(peer, peer.member, MemberState.DOWN)

    def _leaves(self, member: Member, now_ns: int) -> None:
        """Take that a start of a member leaves, by its own word or passed on."""
        peer = self._peers.get(member.id)
        if peer is None:
            self._remember_departure(member, now_ns)
        elif peer.member.incarnation <= member.incarnation:
            self._set(peer, member, MemberState.LEAVING)
            self._addresses.hurry(member.address)

    def _remember_departure(self, member: Member, now_ns: int) -> None:
        if len(self._departed) < MEMBERS_MAX:
            until = now_ns + _DEPARTED_GRACES * self._grace_ns
            self._departed[member.id] = (member.incarnation, until)

    # ---- what others see ----

    def _merge(self, viewer: str, view: View, now_ns: int) -> None:
        """Take what somebody who answers sees of others."""
        self._epoch_seen = max(self._epoch_seen, view.epoch)
        for member in view.members:
            if member.id == viewer:
                continue
            if member.id == self._me.id:
                if not _is_same_start(member, self._me):
                    self._addresses.hear_of(member.address, now_ns)
            elif (peer := self._peers.get(member.id)) is not None:
                self._told(peer, member, now_ns)
            elif member.state is MemberState.UP and not self._is_departed(member):
                self._add(member, MemberState.DOWN, now_ns)
                self._addresses.hurry(member.address)
        is_newer = view.epoch > self._view.epoch
        if is_newer and not self._is_changed and view.members == self._view.members:
            self._view, self._ring = View(view.epoch, self._view.members), None

    def _told(self, peer: _Peer, member: Member, now_ns: int) -> None:
        """Take what another sees of a peer."""
        if member.state is MemberState.UP:
            peer.heard_ns = now_ns
        if member.state is MemberState.LEAVING and peer.member.state is not MemberState.LEAVING:
            self._leaves(member, now_ns)
        elif member.incarnation > peer.member.incarnation:
            if peer.member.state is MemberState.UP and member.address == peer.member.address:
                self._set(peer, member, MemberState.UP)
            elif peer.member.state is MemberState.UP:
                self._addresses.hear_of(member.address, now_ns)
            elif member.state is not MemberState.LEAVING:
                self._set(peer, member, MemberState.DOWN)
                self._addresses.hurry(member.address)

    def _is_departed(self, member: Member) -> bool:
        return member.incarnation <= self._departed.get(member.id, (-1, 0))[0]

    # ---- the table ----

    def _at(self, address: str) -> list[_Peer]:
        return [peer for peer in self._peers.values() if peer.member.address == address]

    def _peer_addresses(self) -> set[str]:
        return {peer.member.address for peer in self._peers.values()}

    def _is_reached(self, member_id: str) -> bool:
        peer = self._peers.get(member_id)
        return member_id == self._me.id or (peer is not None and peer.is_reached)

    def _add(self, member: Member, state: MemberState, now_ns: int) -> None:
        if len(self._peers) + 1 >= MEMBERS_MAX:
            self._refusals[member.address] = f"the group has {MEMBERS_MAX} members already"
            return
        self._peers[member.id] = _Peer(_in_state(member, state), now_ns)
        self._is_changed = True

    def _set(self, peer: _Peer, member: Member, state: MemberState) -> None:
        member = _in_state(member, state)
        if member != peer.member:
            peer.member = member
            self._is_changed = True

    def _remove(self, peer: _Peer) -> None:
        del self._peers[peer.member.id]
        self._is_changed = True

    def _show(self) -> None:
        """Make the view anew if it has changed."""
        if not self._is_changed:
            return
        # Where somebody has told of the greatest, views have one epoch, and readers go by what they list.
        self._epoch_seen = min(max(self._epoch_seen, self._view.epoch) + 1, EPOCH_MAX)
        members = [self._me, *(peer.member for peer in self._peers.values())]
        self._view, self._ring, self._is_changed = View.of(self._epoch_seen, members), None, False


def _in_state(member: Member, state: MemberState) -> Member:
    return member if member.state is state else replace(member, state=state)


def _is_same_start(seen: Member, me: Member) -> bool:
    """Say whether somebody's view has this member as it is: this start, and that it leaves if it does."""
    is_leaving = me.state is MemberState.LEAVING
    return (
        seen.id == me.id
        and seen.incarnation == me.incarnation
        and (not is_leaving or seen.state is MemberState.LEAVING)
    )
