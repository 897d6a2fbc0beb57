"""One message with requests for one peer, and the second one to others when the first peer is silent.

The message writes to the buffers of the caller; a second one writes to memory of its own, and what it brings
is handed over when the first has ended, so that no two ever write to one buffer. A second message asks for
what is cached alone: a member whose peer is merely late must not bring from the under storage what that peer
is about to bring. Once a sign of life has come no second message is sent.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from forebay.errors import Closed, NotFound, Stale
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import Cancelled, PeerDown, PeerRefused
from forebay.peer.member import Member
from forebay.peer.peers import Peers
from forebay.remote import BlockRequest


class Receiver(Protocol):
    """What a message serves: a call for many blocks. Threads: any."""

    @property
    def requests(self) -> Sequence[BlockRequest]:
        """What is wanted."""

    @property
    def buffers(self) -> Sequence[memoryview]:
        """Where it is to lie."""

    def take(self, index: int, data: bytearray | None = None) -> None:
        """Take a block that has come, in the buffer or in data."""

    def alive(self) -> None:
        """Note a sign of life."""

    def has(self, index: int) -> bool:
        """Say whether a block has come."""

    def next_member(self, index: int) -> Member | None:
        """Return who would be asked for a block next."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is wanted."""


class Message:
    """Requests for one peer, by their indexes in the call. Threads: the one that sends it."""

    def __init__(
        self, peers: Peers, receiver: Receiver, member: Member, indexes: Sequence[int], *, only_cached: bool
    ) -> None:
        """Prepare it; only_cached: the peer brings nothing."""
        self.member: Final = member
        self.indexes: Final = indexes
        self.only_cached: Final = only_cached
        self.silent_s = 0.0
        # What the peer says of the source; the blocks that have not come are then asked of nobody else.
        self.said: OSError | None = None
        self.was_answered = False
        self._peers: Final = peers
        self._receiver: Final = receiver
        self._begun_s = 0.0
        self._heard_s = 0.0
        self._patience_s = 0.0
        self._has_heard = False
        self._hedge: _Hedge | None = None

    @property
    def size_bytes(self) -> int:
        """What is asked for."""
        return sum(self._receiver.requests[index].length for index in self.indexes)

    def send(self, deadline: Deadline) -> None:
        """Send it and take what comes, until all is answered or the deadline is over.

        Says afterwards, in its attributes, whether the peer answered.
        """
        peers, member = self._peers, self.member
        self._patience_s = deadline.silence_s
        with peers.in_flight.passing(self.size_bytes, deadline.silence_s) as has_room:
            if not has_room:
                peers.counts.add("no_room")
                self.was_answered = True  # the peer has no part in it, and others would have to wait as well
                return
            self._begun_s = self._heard_s = peers.now_s()
            peers.budget.earn()
            peers.begin(member)
            try:
                self._read(deadline)
            finally:
                peers.end(member)
                self._take_hedged()

    def _read(self, deadline: Deadline) -> None:
        receiver = self._receiver
        try:
            self._peers.links.link(self.member).read(
                [receiver.requests[index] for index in self.indexes],
                [receiver.buffers[index] for index in self.indexes],
                self._came,
                self._alive,
                only_cached=self.only_cached,
                deadline=deadline,
                cancelled=self._is_cancelled,
            )
            self.was_answered = True
        except (NotFound, Stale, PermissionError) as error:
            self.was_answered, self.said = True, error
        except PeerRefused as error:
            self._peers.refused(self.member, error)
        except (Cancelled, Closed):
            pass  # no fault of the peer's: not wanted any more, or it has moved to another address
        except PeerDown as error:
            self.silent_s = self._peers.now_s() - self._heard_s
            self._peers.failed(self.member, error)
        if self.was_answered and self._has_heard:
            self._peers.suspects.answered(self.member.id)

    def _came(self, position: int) -> None:
        self._alive()
        self._receiver.take(self.indexes[position])

    def _alive(self) -> None:
        self._heard_s = self._peers.now_s()
        if not self._has_heard:
            self._has_heard = True
            self._peers.latency(self.member.id).note(self._heard_s - self._begun_s)
        self._receiver.alive()

    def _is_cancelled(self) -> bool:
        """Say whether to stop; asked all the time while nothing comes, so a second message begins here."""
        if self._is_settled():
            return True
        if not self._has_heard and self._hedge is None:
            silent_s = self._peers.now_s() - self._begun_s
            if silent_s >= self._peers.latency(self.member.id).hedge_after_s:
                patience_s = self._patience_s - silent_s
                self._hedge = _Hedge(self._peers, self._receiver, self._missing(), self.member, patience_s)
                self._hedge.start()
        return False

    def _is_settled(self) -> bool:
        if self._receiver.is_over:
            return True
        return self._hedge is not None and self._hedge.has_all(self._missing())

    def _missing(self) -> list[int]:
        return [index for index in self.indexes if not self._receiver.has(index)]

    def _take_hedged(self) -> None:
        """Hand over what a second message has brought and the first has not; the first has ended."""
        if self._hedge is None:
            return
        come = self._hedge.end()
        won = [index for index in self._missing() if index in come]
        for index in won:
            self._receiver.take(index, come[index])
        if won:
            self._peers.counts.add("hedges_won")
            if not self._has_heard:
                self._peers.silent(self.member)


class _Hedge:
    """The second messages for what one silent peer was asked. Threads: any."""

    def __init__(
        self, peers: Peers, receiver: Receiver, indexes: Sequence[int], silent: Member, patience_s: float
    ) -> None:
        self._peers: Final = peers
        self._receiver: Final = receiver
        self._indexes: Final = indexes
        self._silent: Final = silent
        # It ends with that for the first message.
        self._patience_s: Final = patience_s
        self._lock: Final = threading.Lock()
        self._come: dict[int, bytearray] = {}
        self._is_ended = False

    def start(self) -> None:
        """Send them, one to each peer that is next in rank, as far as limits allow."""
        by_member: dict[Member, list[int]] = defaultdict(list)
        for index in self._indexes:
            member = self._receiver.next_member(index)
            if member is not None and member.id != self._silent.id:
                by_member[member].append(index)
        for member, indexes in by_member.items():
            if self._peers.budget.spend() and self._peers.helpers.run(partial(self._send, member, indexes)):
                self._peers.counts.add("hedges")

    def has_all(self, indexes: Sequence[int]) -> bool:
        """Say whether all of these have come here."""
        with self._lock:
            return all(index in self._come for index in indexes)

    def end(self) -> dict[int, bytearray]:
        """Take nothing any more; return what has come. Those who send are left to notice."""
        with self._lock:
            self._is_ended = True
            come, self._come = self._come, {}
            return come

    def _send(self, member: Member, indexes: Sequence[int]) -> None:
        requests = [self._receiver.requests[index] for index in indexes]
        size_bytes = sum(request.length for request in requests)
        deadline = Deadline(self._patience_s, self._peers.now_s() + self._patience_s)
        with self._peers.hedged.passing(size_bytes, 0.0) as has_room:
            if not has_room or size_bytes > self._peers.hedged.bytes_max:
                return
            own = [bytearray(request.length) for request in requests]
            self._peers.begin(member)
            try:
                self._peers.links.link(member).read(
                    requests,
                    [memoryview(each) for each in own],
                    partial(self._take, indexes, own),
                    _ignore,
                    only_cached=True,
                    deadline=deadline,
                    cancelled=self._is_cancelled,
                )
            except PeerDown as error:
                self._peers.failed(member, error)
            except (Cancelled, Closed, OSError):
                pass  # what is refused, or said of the source, the first message hears as well
            finally:
                self._peers.end(member)

    def _take(self, indexes: Sequence[int], own: Sequence[bytearray], position: int) -> None:
        with self._lock:
            if not self._is_ended:
                self._come[indexes[position]] = own[position]

    def _is_cancelled(self) -> bool:
        return self._is_ended or self._receiver.is_over


def _ignore() -> None:
    """Do nothing at a sign of life."""
