"""A group of members in one process, under one clock: they probe each other over links that fail by a plan.

Time moves in ticks of a quarter of a second. A probe asks now and is answered, or given up, some ticks later.
"""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

from forebay.errors import ConfigError
from forebay.peer.member import Member, MemberState
from forebay.peer.membership import Answer, Membership, Rules
from forebay.testing.clock import ManualClock

GROUP = "g"
TICK_S = 0.25
ANSWER_TICKS_MAX = 2
GIVE_UP_TICKS = 4
RULES = Rules(probe_interval_s=1.0, misses=2, grace_s=30.0)


@dataclass
class Host:
    """A cache directory, and the process that serves it, if one does."""

    id: str
    address: str
    zone: str = ""
    weight: float = 1.0
    incarnation: int = 0
    process: Membership | None = None
    is_stopped: bool = False
    errors: list[str] = field(default_factory=list)


@dataclass
class Network:
    """What is cut, one way each, and how much is lost."""

    cuts: set[tuple[str, str]] = field(default_factory=set)
    loss: float = 0.0


class Simulation:
    """Hosts, their links and the clock. Everything that is random comes from the seed."""

    def __init__(self, seed: int, host_count: int) -> None:
        self.random = random.Random(seed)
        self.clock = ManualClock()
        self.network = Network()
        self.hosts: list[Host] = []
        self._on_the_way: list[tuple[int, Host, Membership, str, Answer | None]] = []
        self._tick = 0
        for _ in range(host_count):
            self.new_host()
        self.seeds = [host.address for host in self.hosts[:2]]

    def new_host(self) -> Host:
        number = len(self.hosts)
        host = Host(
            str(uuid.UUID(bytes=self.random.randbytes(16))),
            f"host-{number}:7070",
            zone=f"zone-{number % 3}",
            weight=self.random.choice([1.0, 1.0, 2.0]),
        )
        self.hosts.append(host)
        return host

    def start(self, host: Host, address: str | None = None) -> None:
        """Start a host's process, at another address than the last time if one is given."""
        host.address = address or host.address
        host.incarnation += 1
        me = Member(host.id, host.address, weight=host.weight, zone=host.zone, incarnation=host.incarnation)
        host.process = Membership(me, GROUP, self.seeds, clock=self.clock, rules=RULES)

    def kill(self, host: Host) -> None:
        host.process = None

    def leave(self, host: Host) -> None:
        """Let a member say that it leaves to all that it knows and reaches."""
        assert host.process is not None
        word = host.process.leave()
        for member in host.process.view.members:
            self._announce(host, member.address, word)

    @property
    def running(self) -> list[Host]:
        return [host for host in self.hosts if host.process is not None]

    def run(self, seconds: float) -> None:
        """Let time pass."""
        for _ in range(round(seconds / TICK_S)):
            self._tick += 1
            self.clock.advance(TICK_S)
            self._deliver()
            for host in self.running:
                if not host.is_stopped:
                    self._drive(host)

    def at(self, address: str) -> Host | None:
        """Return the running host at an address."""
        return next((host for host in self.running if host.address == address), None)

    def cut(self, ones: Iterable[Host], others: Iterable[Host], *, one_way: bool = False) -> None:
        """Cut all links from ones to others, and back unless it is one way."""
        for one, other in itertools.product(ones, list(others)):
            self.network.cuts.add((one.id, other.id))
            if not one_way:
                self.network.cuts.add((other.id, one.id))

    def _drive(self, host: Host) -> None:
        process = host.process
        assert process is not None
        for address in process.due():
            answer = self._ask(host, address)
            ticks = GIVE_UP_TICKS if answer is None else self.random.randint(1, ANSWER_TICKS_MAX)
            self._on_the_way.append((self._tick + ticks, host, process, address, answer))
        for address in process.unaware():
            self._announce(host, address, self._self_of(process, host))

    def _ask(self, host: Host, address: str) -> Answer | None:
        other = self.at(address)
        if other is None or other.is_stopped or not (self._passes(host, other) and self._passes(other, host)):
            return None
        assert other.process is not None
        return Answer(GROUP, self._self_of(other.process, other), other.process.view)

    def _deliver(self) -> None:
        arrived = [entry for entry in self._on_the_way if entry[0] <= self._tick]
        self._on_the_way = [entry for entry in self._on_the_way if entry[0] > self._tick]
        for _, host, process, address, answer in arrived:
            if host.process is not process:
                continue
            if host.is_stopped:
                self._on_the_way.append((self._tick + 1, host, process, address, answer))
            elif answer is None:
                process.no_answer(address)
            else:
                self._answer(host, address, answer)

    def _answer(self, host: Host, address: str, answer: Answer) -> None:
        assert host.process is not None
        try:
            host.process.answered(address, answer)
        except ConfigError as error:
            host.errors.append(str(error))

    def _announce(self, host: Host, address: str, word: Member) -> None:
        other = self.at(address)
        if other is not None and other is not host and self._passes(host, other):
            assert other.process is not None
            other.process.announced(word)

    def _passes(self, host: Host, other: Host) -> bool:
        return (host.id, other.id) not in self.network.cuts and self.random.random() >= self.network.loss

    @staticmethod
    def _self_of(process: Membership, host: Host) -> Member:
        return next(member for member in process.view.members if member.id == host.id)


def keys(count: int) -> list[tuple[str, str, int]]:
    return [("data", f"shard-{number}", number % 3 << 26) for number in range(count)]


def owners(process: Membership, count: int = 50) -> list[list[str]]:
    """Name the owners of some keys, two copies each."""
    return [[member.id for member in process.ring.owners(*key, count=2)] for key in keys(count)]


def up(process: Membership) -> set[str]:
    return {member.id for member in process.view.members if member.state is MemberState.UP}
