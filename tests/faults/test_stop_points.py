"""SIGSTOP at every failpoint: everybody else goes on, and so does the stopped process in the end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

from forebay.errors import StoreBusy
from forebay.store import BlockStore
from tests.faults._child import Child, run
from tests.faults._place import Place
from tests.faults._points import ALONE_ONLY, KEPT, Case, Workload, arm, cases, in_first_page
from tests.faults._victim import AT_ONCE_S, come_after, prepare, struck
from tests.faults._world import Block, Progress, World, put

CASES = [case for case in cases() if case.medium == "MEM"]
JOINED = [case for case in CASES if case.point not in ALONE_ONLY]
ALONE = [case for case in CASES if case.point in ALONE_ONLY or case.point == "row.claimed"]

# A lock that a stopped process holds is given up after a second; a call may meet two of them, on a busy
# machine. Less than if each of the keys that are read met one.
BOUND_S: Final = 12.0
KEYS_READ: Final = 400
OTHERS: Final = [Block(900_000 + i, 1000) for i in range(2)]

Act = Callable[[BlockStore, World, Block], None]


def timed(call: Callable[[], object]) -> None:
    """Make a call that must not hang."""
    begun = time.monotonic()
    call()
    assert time.monotonic() - begun < BOUND_S


def read(store: BlockStore, world: World, block: Block) -> None:
    """Read many keys: each is a hit with right bytes or a miss, and not even all of them wait for a lock."""

    def check(key: bytes, possible: set[Block]) -> None:
        view = store.get(key)
        if view is not None:
            with view:
                assert any(view == one.data for one in possible)

    chosen = [block.key, *list(world.possible)[:: max(1, len(world.possible) // KEYS_READ)]]

    def check_all() -> None:
        for key in chosen:
            check(key, world.possible[key])

    timed(check_all)


def write(store: BlockStore, world: World, block: Block) -> None:
    """Put the block that is being worked on, and others: each is admitted or not."""
    for one in (block, *OTHERS):
        timed(partial(store.put, one.key, one.data))


def remove(store: BlockStore, world: World, block: Block) -> None:
    """Delete the block that is being worked on, or be told that its page is busy."""

    def attempt() -> None:
        with suppress(StoreBusy):
            store.delete(block.key)

    timed(attempt)


def other(link: Connection, place: Place, act: Act) -> None:
    """Body: a process that had the store open before another was stopped."""
    with place.open() as store:
        link.send("open")
        world, block = link.recv()
        act(store, world, block)
        link.send("done")
        assert link.recv() == "close"


@pytest.mark.parametrize("case", JOINED, ids=str)
def test_the_others_go_on_and_the_stopped_process_ends_well(case: Case, memory_path: Path) -> None:
    place, acted, progress = case.place(memory_path), case.workload.acted, Progress()
    run(prepare, place, case.workload)
    with (
        Child(other, place, read) as reader,
        Child(other, place, write) as writer,
        Child(other, place, remove) as deleter,
    ):
        others = (reader, writer, deleter)
        assert [process.receive() for process in others] == ["open"] * 3
        with Child(struck, place, case.point, "stop", acted, progress) as victim:
            assert victim.wait_stopped(), f"{case} was not reached"
            begun = case.world(progress.count)
            in_work = acted[progress.count].block if acted else None
            block = replace(in_work or KEPT[0], version=9)
            begun.may_put(block)
            for process in others:
                process.send((begun, block))
            assert [process.receive() for process in others] == ["done"] * 3
            victim.resume()
            victim.result()
        for process in others:
            process.send("close")
            process.result()
    world = case.world(len(acted))
    world.may_delete(block)
    for one in (in_work or KEPT[0], block, *OTHERS):
        world.may_put(one)
    run(come_after, place, case.workload, world)


def opened_late(link: Connection, place: Place) -> None:
    """Body: open while another process is stopped."""
    with place.open():
        pass


@pytest.mark.parametrize("case", ALONE, ids=str)
def test_an_opener_waits_for_one_that_is_stopped_in_recovery(case: Case, memory_path: Path) -> None:
    place, acted = case.place(memory_path), case.workload.acted
    run(prepare, place, case.workload)
    with Child(struck, place, case.point, "stop", acted, Progress()) as victim:
        assert victim.wait_stopped(), f"{case} was not reached"
        with Child(opened_late, place) as opener:
            with pytest.raises(TimeoutError):
                opener.exit_code(0.2)
            victim.resume()
            victim.result()
            opener.result()
    run(come_after, place, case.workload, case.world(len(acted)))


def test_writing_where_a_stopped_process_writes_is_refused_in_time(memory_path: Path) -> None:
    place, block = Place.under(memory_path), KEPT[0]
    run(lambda link: place.open().close())

    def meet(link: Connection) -> None:
        with place.open() as store:
            link.send("open")
            assert link.recv() == "stopped"
            begun = time.monotonic()
            with pytest.raises(StoreBusy, match="live process"):
                store.delete(block.key)
            assert not store.put(block.key, block.data)
            assert store.get(block.key) is None
            assert time.monotonic() - begun < BOUND_S
            link.send("refused")
            assert link.recv() == "ended"
            with store.get(block.key) or memoryview(b"") as view:
                assert view == block.data
            assert store.delete(block.key)

    with Child(meet) as other:
        assert other.receive() == "open"
        with Child(struck, place, "index.locked", "stop", [put(block)], Progress()) as victim:
            assert victim.wait_stopped()
            assert other.ask("stopped") == "refused"
            victim.resume()
            victim.result()
        other.send("ended")
        other.result()


def test_a_dead_owner_counts_as_dead_while_its_row_is_cleared(memory_path: Path) -> None:
    """Who clears it holds the very lock that says whether its owner lives, and may be stopped meanwhile."""
    place, held = Place.under(memory_path), Block(10**6, 30_000)
    contested = in_first_page(1)[0]
    run(prepare, place, Workload((put(held),), ()))

    def hold_and_die(link: Connection) -> None:
        arm("index.locked", "kill")
        with place.open() as store:
            # The first read verifies, the second holds.
            views = [store.get(held.key) for _ in range(2)]
            assert views[1] is not None
            store.put(contested.key, contested.data)

    def take_over(link: Connection) -> None:
        with place.open() as store:
            link.send("open")
            assert link.recv() == "stopped"
            begun = time.monotonic()
            assert store.put(contested.key, contested.data)
            assert time.monotonic() - begun < AT_ONCE_S

    def evict(link: Connection) -> None:
        arm("row.reclaimed", "stop")
        with place.open() as store:
            link.send("open")
            assert link.recv() == "dead"
            store.free_dataset(held.dataset)

    with Child(take_over) as other, Child(evict) as victim:
        assert other.receive() == victim.receive() == "open"
        with Child(hold_and_die) as holder:
            assert holder.exit_code() == -signal.SIGKILL
        victim.send("dead")
        assert victim.wait_stopped()
        other.send("stopped")
        other.result()
        victim.resume()
        victim.result()
