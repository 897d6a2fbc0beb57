"""Both sides of a fault: the process that it strikes, and those that go on or come after."""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Final

from forebay.store import BlockStore
from tests.faults._place import Place, assert_account, settle
from tests.faults._points import CHURNED, Workload, arm
from tests.faults._world import Block, Operation, Progress, World, perform_all, put, world_after

# A dead holder is found out by its lock, not by a time-out; this is for a busy machine.
AT_ONCE_S: Final = 10.0
FOLLOWING: Final = 500_000  # numbers of the blocks that are put after the fault


def prepare(link: Connection, place: Place, workload: Workload) -> None:
    """Body: make the store that the fault will find, and close it."""
    with place.open() as store:
        perform_all(store, workload.prepared)
    if workload.index_lost:
        place.lose_index()


def struck(
    link: Connection,
    place: Place,
    point: str,
    action: str,
    operations: Sequence[Operation],
    progress: Progress,
    nth: int = 1,
) -> None:
    """Body: the process that is killed or stopped at its nth passing of a failpoint."""
    arm(point, action, nth)
    with place.open() as store:
        perform_all(store, operations, progress)


def go_on(store: BlockStore, world: World, workload: Workload) -> None:
    """Put and read as if nothing had happened; no call may wait for the one that is gone."""
    for i in range(40):
        block = Block(FOLLOWING + i, 2000 + i, dataset=CHURNED if workload.fills else 0)
        operation = put(block, lasting=not workload.fills)
        begun = time.monotonic()
        operation.perform(store)
        with store.get(block.key) or memoryview(b"") as found:
            assert workload.fills or found == block.data
        assert time.monotonic() - begun < AT_ONCE_S
        operation.done(world)


def check_all(place: Place, store: BlockStore, world: World, workload: Workload) -> None:
    """Hold the store to the model and to its own account, at once and after maintenance."""
    if not workload.index_lost:
        world.verify(store)
    go_on(store, world, workload)
    settle(store)
    assert_account(place, store, world.verify(store))


def survive(link: Connection, place: Place, workload: Workload) -> None:
    """Body: have the store open before the fault, and go on after it."""
    with place.open() as store:
        link.send("open")
        world = world_after(workload.prepared, workload.acted, link.recv())
        check_all(place, store, world, workload)


def come_after(link: Connection, place: Place, workload: Workload, world: World) -> None:
    """Body: open the store after the fault."""
    with place.open() as store:
        check_all(place, store, world, workload)
