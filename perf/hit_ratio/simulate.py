"""Reference policies over a trace of equal items, in memory: what a policy can reach, without a store.

Invariant: a policy never holds more than `capacity` items. Belady's needs the future and so takes a whole
trace; the others see one access at a time.
Sources: L. A. Belady, "A study of replacement algorithms" (1966); J. Yang et al., "FIFO queues are all you
need for cache eviction" (SOSP 2023), section 4, for S3-FIFO.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

NEVER = 1 << 62


class Policy(Protocol):
    """A cache of items; access() tells whether the item was there, and admits it by the policy's rule."""

    def access(self, item: int) -> bool: ...


class Fifo:
    """Evicts what was admitted longest ago."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: OrderedDict[int, None] = OrderedDict()

    def access(self, item: int) -> bool:
        if item in self._items:
            return True
        if len(self._items) >= self._capacity:
            self._items.popitem(last=False)
        self._items[item] = None
        return False


class Lru(Fifo):
    """Evicts what was used longest ago."""

    def access(self, item: int) -> bool:
        hit = super().access(item)
        if hit:
            self._items.move_to_end(item)
        return hit


class Keep:
    """Admits until it is full, then keeps: the retention `epoch`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: set[int] = set()

    def access(self, item: int) -> bool:
        if item in self._items:
            return True
        if len(self._items) < self._capacity:
            self._items.add(item)
        return False


class S3Fifo:
    """A small and a main FIFO queue, and a ghost queue of names that left the small one unused."""

    SMALL_SHARE = 0.1
    COUNT_MAX = 3

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._small_capacity = max(1, int(capacity * self.SMALL_SHARE))
        self._small: OrderedDict[int, int] = OrderedDict()
        self._main: OrderedDict[int, int] = OrderedDict()
        self._ghost: OrderedDict[int, None] = OrderedDict()

    def access(self, item: int) -> bool:
        for queue in (self._small, self._main):
            if item in queue:
                queue[item] = min(self.COUNT_MAX, queue[item] + 1)
                return True
        while len(self._small) + len(self._main) >= self._capacity:
            self._evict()
        if item in self._ghost:
            del self._ghost[item]
            self._main[item] = 0
        else:
            self._small[item] = 0
        return False

    def _evict(self) -> None:
        if len(self._small) >= self._small_capacity or not self._main:
            self._evict_small()
        else:
            self._evict_main()

    def _evict_small(self) -> None:
        """Move used items to the main queue; the first unused one leaves, its name stays as a ghost."""
        while self._small:
            item, count = self._small.popitem(last=False)
            if count <= 1:
                self._ghost[item] = None
                if len(self._ghost) > self._capacity - self._small_capacity:
                    self._ghost.popitem(last=False)
                return
            self._main[item] = 0

    def _evict_main(self) -> None:
        """Give used items another round; the first unused one leaves."""
        while self._main:
            item, count = self._main.popitem(last=False)
            if count == 0:
                return
            self._main[item] = count - 1


def hits(policy: Policy, trace: Sequence[int]) -> list[bool]:
    """Tell for each access whether it hit."""
    return [policy.access(item) for item in trace]


def belady_hits(capacity: int, trace: Sequence[int]) -> list[bool]:
    """Tell for each access whether it would hit if what is needed last were always evicted."""
    following = _next_uses(trace)
    cached: dict[int, int] = {}
    farthest: list[tuple[int, int]] = []
    found = []
    for position, item in enumerate(trace):
        found.append(item in cached)
        cached[item] = following[position]
        heapq.heappush(farthest, (-following[position], item))
        while len(cached) > capacity:
            use, candidate = heapq.heappop(farthest)
            if cached.get(candidate) == -use:  # else an entry of an earlier use
                del cached[candidate]
    return found


def _next_uses(trace: Sequence[int]) -> list[int]:
    following = [NEVER] * len(trace)
    seen: dict[int, int] = {}
    for position in range(len(trace) - 1, -1, -1):
        following[position] = seen.get(trace[position], NEVER)
        seen[trace[position]] = position
    return following


def reference_hits(capacity: int, trace: Sequence[int]) -> dict[str, list[bool]]:
    """Run every reference over the trace."""
    policies: dict[str, Callable[[int], Policy]] = {"LRU": Lru, "FIFO": Fifo, "S3-FIFO": S3Fifo, "keep": Keep}
    found = {name: hits(make(capacity), trace) for name, make in policies.items()}
    return found | {"Belady": belady_hits(capacity, trace)}


def ratio(found: Sequence[bool], skip: int = 0) -> float:
    """Return the share of hits after the first `skip` accesses."""
    return sum(found[skip:]) / (len(found) - skip)
