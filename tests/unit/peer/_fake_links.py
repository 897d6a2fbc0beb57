"""Peers that do what a test says, by a clock that moves only when they are silent."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from forebay.peer.data.deadline import Deadline, never
from forebay.peer.data.errors import Cancelled, PeerDown
from forebay.peer.member import Member, MemberState, View
from forebay.remote import BlockRequest, RemoteObject

BLOCK_BYTES = 64


class FakeTime:
    """A monotonic clock that is moved by hand. Threads: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now_s = 1_000.0

    def __call__(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._now_s += seconds


def member(number: int, state: MemberState = MemberState.UP, host: str = "") -> Member:
    return Member(
        str(uuid.UUID(int=number)), f"127.0.0.1:{7000 + number}", data_port=1, state=state, host=host
    )


def view(count: int, epoch: int = 1, down: Sequence[int] = ()) -> View:
    members = [
        member(number, MemberState.DOWN if number in down else MemberState.UP) for number in range(count)
    ]
    return View.of(epoch, members)


def request(path: str, number: int = 0, version: str = "v1") -> BlockRequest:
    return BlockRequest("d", path, version, number, number * BLOCK_BYTES, BLOCK_BYTES)


def block(wanted: BlockRequest) -> bytes:
    """Return what the block holds."""
    return f"{wanted.path}/{wanted.number}".encode().ljust(BLOCK_BYTES, b".")


@dataclass
class Call:
    """One message as it reaches a peer."""

    requests: Sequence[BlockRequest]
    buffers: Sequence[memoryview]
    came: Callable[[int], None]
    on_alive: Callable[[], None]
    only_cached: bool
    deadline: Deadline
    cancelled: Callable[[], bool]
    time: FakeTime
    heard_s: float = 0.0

    def __post_init__(self) -> None:
        self.heard_s = self.time()

    def alive(self) -> None:
        """Give a sign of life."""
        self.heard_s = self.time()
        self.on_alive()

    def give(self, *positions: int) -> None:
        """Answer these requests, all without any."""
        for position in positions or range(len(self.requests)):
            self.alive()
            self.buffers[position][:] = block(self.requests[position])
            self.came(position)

    def be_silent(self, seconds: float) -> None:
        """Let the time pass, as a link does that waits: until the deadline, or until it is cancelled."""
        until_s = self.time() + seconds
        while self.time() < until_s:
            if self.cancelled():
                raise Cancelled
            if self.time() - self.heard_s >= self.deadline.silence_s:
                raise PeerDown("no sign of life")
            if self.deadline.end_s is not None and self.time() >= self.deadline.end_s:
                raise PeerDown("no whole answer")
            self.time.advance(0.001)


Behaviour = Callable[[Call], None]


def give_all(call: Call) -> None:
    call.give()


def have_nothing(call: Call) -> None:
    call.alive()


def refuse_connections(call: Call) -> None:
    raise PeerDown("connection refused")


def stay_silent(call: Call) -> None:
    call.be_silent(1e9)


@dataclass
class FakeLink:
    """One peer."""

    time: FakeTime
    does: Behaviour = give_all
    said: View | None = None
    calls: list[Call] = field(default_factory=list)

    def read(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
        *,
        only_cached: bool = False,
        deadline: Deadline,
        cancelled: Callable[[], bool],
    ) -> None:
        call = Call(requests, buffers, came, alive, only_cached, deadline, cancelled, self.time)
        self.calls.append(call)
        self.does(call)

    def touch(
        self, dataset: str, path: str, offset: int, length: int, *, deadline: Deadline
    ) -> tuple[RemoteObject, memoryview]:
        return self.stat(dataset, path, deadline=deadline), memoryview(b"data")[:length]

    def stat(self, dataset: str, path: str, *, deadline: Deadline) -> RemoteObject:
        call = Call([], [], lambda _: None, lambda: None, False, deadline, never, self.time)
        self.calls.append(call)
        self.does(call)
        return RemoteObject(path, 4, 5, "v1", False, 0)

    def list(self, dataset: str, directory: str, *, deadline: Deadline) -> Iterator[list[RemoteObject]]:
        first = self.stat(dataset, f"{directory}/a", deadline=deadline)
        return iter([[first], [RemoteObject(f"{directory}/b", 4, 5, "v1", False, 0)]])


class FakeLinks:
    """The ways to peers, each of which gives all that it is asked for until it is told otherwise."""

    def __init__(self, time: FakeTime | None = None) -> None:
        self.time = time or FakeTime()
        self.by_id: dict[str, FakeLink] = {}
        self.seeds: dict[str, View] = {}
        self.greeted: list[str] = []
        self.is_closed = False

    def link(self, member: Member) -> FakeLink:
        return self.by_id.setdefault(member.id, FakeLink(self.time))

    def view(self, member: Member, *, deadline: Deadline) -> View:
        link = self.link(member)
        link.does(Call([], [], lambda _: None, lambda: None, False, deadline, never, self.time))
        if link.said is None:
            raise PeerDown("no view")
        return link.said

    def greet(self, address: str, *, deadline: Deadline) -> View:
        self.greeted.append(address)
        if address not in self.seeds:
            raise PeerDown("connection refused")
        return self.seeds[address]

    def keep(self, member_ids: frozenset[str]) -> None:
        for gone in self.by_id.keys() - member_ids:
            del self.by_id[gone]

    def close(self) -> None:
        self.is_closed = True
