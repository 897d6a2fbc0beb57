"""One block whose views are held across forks, kills and evictions, and what tells whether they hold."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any, Final

from forebay.store import BlockStore, View
from tests.faults._child import run
from tests.faults._place import Place, settle
from tests.faults._world import Block

BLOCK: Final = Block(1, 50_000)
JUNK: Final = 9  # the dataset that segments are recycled for


def with_block(place: Place, **options: Any) -> Place:
    """Make the store that the place lays out, with the block in it."""

    def make(link: Connection) -> None:
        with place.open(**options) as store:
            assert store.put(BLOCK.key, BLOCK.data)

    run(make)
    return place


def take(store: BlockStore) -> View:
    """Return a zero-copy view of the block."""
    view = store.get(BLOCK.key)
    assert view is not None
    assert view.zero_copy
    return view


def still_right(link: Connection, view: View) -> bool:
    """Body: tell, when it is asked, whether an inherited view has the block's bytes."""
    link.send("forked")
    link.recv()
    return view == BLOCK.data


def recycle(store: BlockStore) -> None:
    """Evict everything and write all segments that can be had anew, twice."""
    store.free_dataset(0)
    settle(store)
    for version in range(2):
        numbers = iter(range(1000, 2000))
        while store.put((junk := Block(next(numbers), 60_000, version)).key, junk.data, dataset=JUNK):
            pass
        store.free_dataset(JUNK)
        settle(store)
    assert store.get(BLOCK.key) is None


def held(store: BlockStore) -> tuple[int, int]:
    """Return the segments held and the processes that hold, after maintenance."""
    settle(store)
    status = store.status()
    tier = status["tiers"][0]
    assert tier["held_bytes"] == tier["segments_held"] * tier["segment_bytes"]
    return tier["segments_held"], len(status["holders"])
