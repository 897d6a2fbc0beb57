"""Replays of a trace through a real store: look up, and on a miss put, as the cache above it does.

Each item's bytes are a run of one random buffer, at an offset of its own, so that a hit with another item's
bytes is seen. A replay asks for bytes far faster than a training job; where the evictor's choices are what
is measured, it is given its turns in the reader's own thread, so that it keeps up and figures repeat.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from forebay import BlockStore

PROBE_BYTES = 16
TURN_EVERY = 32  # admissions between two turns of the evictor


class Items:
    """Sizes, keys and bytes of the items of a data set."""

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        self.sizes = sizes
        self.total_bytes = sum(sizes)
        self._noise = memoryview(random.Random(seed).randbytes(len(sizes) + max(sizes)))

    def key(self, item: int) -> bytes:
        return item.to_bytes(8, "little")

    def data(self, item: int) -> memoryview:
        return self._noise[item : item + self.sizes[item]]


@dataclass
class Tally:
    """What a replay saw, counted by the reader and not by the store."""

    reads: int = 0
    hits: int = 0
    admitted: int = 0
    admitted_bytes: int = 0

    @property
    def hit_ratio(self) -> float:
        return self.hits / self.reads


def replay(
    store: BlockStore, items: Items, trace: Iterable[int], dataset: int, *, give_turns: bool = False
) -> Tally:
    """Read the items of the trace; with give_turns to a store that was made without a maintainer of its own.

    Raises: RuntimeError (a hit's bytes are not the item's).
    """
    tally = Tally()
    for item in trace:
        tally.reads += 1
        key, data = items.key(item), items.data(item)
        view = store.get(key)
        if view is None:
            if store.put(key, data, dataset=dataset):
                tally.admitted += 1
                tally.admitted_bytes += len(data)
            if give_turns and tally.admitted % TURN_EVERY == 0:
                store.maintain()
            continue
        with view:
            if len(view) != len(data) or view[:PROBE_BYTES] != data[:PROBE_BYTES]:
                raise RuntimeError(f"wrong bytes for item {item}")
        tally.hits += 1
    return tally


def resident_bytes(store: BlockStore, items: Items) -> int:
    """Sum the sizes of the items that the store has, by asking for each."""
    return sum(size for item, size in enumerate(items.sizes) if store.contains(items.key(item)))
