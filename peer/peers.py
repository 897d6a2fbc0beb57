"""What one process knows of the peers it asks: ways to them, how fast they answer, whom it suspects.

Of one process: a forked child makes its own. Counts are the process's since it began to ask.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Final

from forebay.cache.workers import Workers
from forebay.errors import ConfigError
from forebay.peer.hedge import HedgeBudget, Latency
from forebay.peer.in_flight import InFlight
from forebay.peer.link import Links
from forebay.peer.member import Member
from forebay.peer.suspects import Suspects

_log = logging.getLogger(__name__)

_CLOSE_PATIENCE_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimits:
    """Bounds of what one process asks of its group. Raises: ConfigError (one that allows nothing)."""

    peer_timeout_s: float = 2.0  # silence after which the next peer is asked
    total_timeout_s: float = 120.0  # for one call, whatever signs of life there are
    messages_max: int = 64  # under way
    in_flight_bytes_max: int = 512 << 20
    threads_max: int = 16  # beside the calling ones
    hedge_bytes_max: int = 64 << 20  # memory for second answers

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value <= 0:
                raise ConfigError(f"{name} of a group: {value!r} is too few, expected more than 0")


@dataclass(slots=True)
class Counts:
    """What happened; single additions under one lock, so that none is lost."""

    messages: int = 0
    blocks_asked: int = 0
    blocks_come: int = 0
    hedges: int = 0
    hedges_won: int = 0
    failures: int = 0
    refusals: int = 0
    no_room: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, name: str, count: int = 1) -> None:
        """Add to one of them."""
        with self._lock:
            setattr(self, name, getattr(self, name) + count)

    def as_dict(self) -> dict[str, int]:
        """Return all of them by name."""
        return {name: getattr(self, name) for name in self.__slots__ if not name.startswith("_")}


class Helpers:
    """Threads beside the calling one, a bounded number of them. Threads: any."""

    def __init__(self, threads_max: int) -> None:
        """Start none yet."""
        self._free: Final = threading.BoundedSemaphore(threads_max)
        self._workers: Final = Workers("forebay-peers")

    def run(self, work: Callable[[], None]) -> bool:
        """Have a thread do this, which raises nothing; return False, and do nothing, if none is free."""
        if not self._free.acquire(blocking=False):
            return False

        def and_release() -> None:
            try:
                work()
            finally:
                self._free.release()

        try:
            self._workers.run(and_release)
        except RuntimeError:  # the interpreter ends
            self._free.release()
            return False
        return True

    def close(self) -> None:
        """Let the threads end."""
        self._workers.close(_CLOSE_PATIENCE_S)


class Peers:
    """The peers as one process sees them. Threads: any."""

    def __init__(
        self, links: Links, limits: GroupLimits, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Ask by these links, within these limits."""
        self.links: Final = links
        self.limits: Final = limits
        self.now_s: Final = now_s
        self.counts: Final = Counts()
        self.suspects: Final = Suspects(now_s)
        self.budget: Final = HedgeBudget()
        self.in_flight: Final = InFlight(limits.messages_max, limits.in_flight_bytes_max)
        self.hedged: Final = InFlight(limits.messages_max, limits.hedge_bytes_max)
        self.helpers: Final = Helpers(limits.threads_max)
        self.on_suspect: Callable[[], None] = lambda: None
        self._latencies: Final[dict[str, Latency]] = {}
        self._asked: Final[dict[str, int]] = {}
        self._lock: Final = threading.Lock()

    def latency(self, member_id: str) -> Latency:
        """Return what is known of how fast a member answers."""
        found = self._latencies.get(member_id)
        return found if found is not None else self._latencies.setdefault(member_id, Latency())

    def busy(self, member_id: str) -> float:
        """Return how long one more answer of a member would take, as far as this process can tell."""
        found = self._latencies.get(member_id)
        return (self._asked.get(member_id, 0) + 1) * (0.0 if found is None else found.median_s)

    def begin(self, member: Member) -> None:
        """Note that a member has been sent a message."""
        with self._lock:
            self._asked[member.id] = self._asked.get(member.id, 0) + 1
        self.counts.add("messages")

    def end(self, member: Member) -> None:
        """Note that a message has been answered, or never will be."""
        with self._lock:
            left = self._asked.pop(member.id) - 1
            if left:
                self._asked[member.id] = left

    def failed(self, member: Member, error: OSError) -> None:
        """Note that a member did not answer."""
        self.counts.add("failures")
        if self.suspects.failed(member.id):
            _log.warning("peer %s does not answer and is not asked for now: %s", member.address, error)
            self.on_suspect()

    def refused(self, member: Member, error: Exception) -> None:
        """Note that a member answers, but not that."""
        self.counts.add("refusals")
        _log.info("peer %s: %s", member.address, error)

    def silent(self, member: Member) -> None:
        """Note that another answered while a member was silent."""
        if self.suspects.slow(member.id):
            _log.warning("peer %s is silent while others answer, and is not asked for now", member.address)
            self.on_suspect()

    def keep(self, member_ids: frozenset[str]) -> None:
        """Forget all but these members."""
        self.suspects.keep(member_ids)
        for gone in self._latencies.keys() - member_ids:
            self._latencies.pop(gone, None)
        self.links.keep(member_ids)

    def close(self) -> None:
        """Close the connections and let the threads end; may be called twice."""
        with suppress(OSError):
            self.links.close()
        self.helpers.close()

    def status(self) -> dict[str, object]:
        """Return counts, bounds and what is under way, for ``Group.status``."""
        return {
            "counters": self.counts.as_dict(),
            "limits": asdict(self.limits),
            "messages": self.in_flight.messages,
            "in_flight_bytes": self.in_flight.size_bytes,
            "hedge_bytes": self.hedged.size_bytes,
            "suspects": sorted(self.suspects.ids),
        }
