"""Which addresses a member probes, and when: those of its peers, seeds, and what it has heard of.

It knows addresses and times only; what an answer means is ``forebay.peer.membership``'s. Bounded: an address
that was merely heard of is forgotten after a while without an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from forebay.clock import NS_PER_S
from forebay.peer._placement import MEMBERS_MAX

# A large group is probed more slowly, so that a member spends a few per cent of a core on it at most.
PROBES_PER_S_MAX: Final = 100


class Addresses:
    """Addresses and when each is probed next. Threads: owner only."""

    def __init__(self, own: str, interval_s: float, heard_for_s: float) -> None:
        """Begin with none; own is never probed."""
        self._own: Final = own
        self._interval_ns: Final = int(interval_s * NS_PER_S)
        self._heard_for_ns: Final = int(heard_for_s * NS_PER_S)
        self._seeds: frozenset[str] = frozenset()
        self._heard: dict[str, int] = {}  # until when
        self._next_ns: dict[str, int] = {}
        self._answerer: dict[str, str] = {}  # who answered at an address that is not its own

    @property
    def known(self) -> set[str]:
        """Seeds, and what was heard of lately."""
        return {*self._seeds, *self._heard}

    def seed(self, addresses: Iterable[str]) -> None:
        """Take these seeds in place of the former ones."""
        self._seeds = frozenset(addresses)

    def hear_of(self, address: str, now_ns: int) -> None:
        """Probe an address soon, and for some time; too many at once are not noted."""
        if address == self._own or address in self._seeds:
            return
        if address not in self._heard:
            if len(self._heard) >= MEMBERS_MAX:
                return
            self._next_ns.pop(address, None)
        self._heard[address] = now_ns + self._heard_for_ns

    def hurry(self, address: str) -> None:
        """Probe an address at once instead of when its time has come."""
        self._next_ns.pop(address, None)

    def alias(self, address: str, member_id: str) -> None:
        """Note who answers at an address that is another name of its own."""
        self._answerer[address] = member_id

    def due(self, peers: Iterable[str], is_reached: Callable[[str], bool], now_ns: int) -> list[str]:
        """Return the addresses whose time has come, and set their next times.

        Another name of somebody who is reached at his own address is left alone.
        """
        self._heard = {address: until for address, until in self._heard.items() if until > now_ns}
        wanted = {*peers, *self._heard, *self._seeds} - {self._own}
        for lapsed in self._next_ns.keys() - wanted:
            del self._next_ns[lapsed]
        for lapsed in self._answerer.keys() - wanted:
            del self._answerer[lapsed]
        interval_ns = max(self._interval_ns, len(wanted) * NS_PER_S // PROBES_PER_S_MAX)
        due = []
        for address in sorted(wanted):
            if self._next_ns.get(address, 0) > now_ns:
                continue
            answerer = self._answerer.get(address)
            if answerer is not None and is_reached(answerer):
                continue
            self._next_ns[address] = now_ns + interval_ns
            due.append(address)
        return due
