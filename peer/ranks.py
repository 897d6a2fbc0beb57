"""Which members are asked for a run, and in which order.

The first R by placement hold the copies. Any of them may have what is wanted, so the nearest and least busy
is asked first, but for what it has cached alone: what nobody has is brought by the first in rank, so that it
is brought once for all. Members that are down or suspected are left out, and those behind them move up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from forebay.peer.member import Member
from forebay.peer.ring import Ring

# Members that may be asked to bring what is wanted, each after those before it have failed.
TRIED_MAX: Final = 3


class Step(NamedTuple):
    """A member to ask; only_cached: it is not to bring what it does not have."""

    member: Member
    only_cached: bool


class Ranks:
    """Orders the members that answer for a run, as one host sees them. Threads: any."""

    def __init__(self, own_id: str | None, host: str, busy: Callable[[str], float]) -> None:
        """own_id: the member that this host is, None for a client; busy: how long a member's answer takes."""
        self._own_id: Final = own_id
        self._host: Final = host
        self._busy: Final = busy

    def elsewhere(
        self, ring: Ring, dataset: str, path: str, offset: int, copies: int, skip: frozenset[str]
    ) -> tuple[Member, ...]:
        """Return who answers before this host does, in order of rank."""
        found = ring.owners(dataset, path, offset, copies + TRIED_MAX - 1, skip)
        if self._own_id is not None:
            for rank, member in enumerate(found):
                if member.id == self._own_id:
                    return found[:rank]
        return found

    def steps(
        self, ring: Ring, dataset: str, path: str, offset: int, copies: int, skip: frozenset[str]
    ) -> list[Step]:
        """Return whom to ask, one after the other; empty: this host answers itself, or nobody is left."""
        members = self.elsewhere(ring, dataset, path, offset, copies, skip)
        full = [Step(member, False) for member in members[:TRIED_MAX]]
        if copies < 2 or len(members) < 2:
            return full
        holders = sorted(members[:copies], key=self._preference)
        ahead = holders[: holders.index(members[0])]
        return [*(Step(member, True) for member in ahead), *full]

    def _preference(self, member: Member) -> tuple[bool, float]:
        return member.host != self._host, self._busy(member.id)
