"""What a kill and a restart must not change: blocks with a TTL, what was read lately, what is pinned."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

from forebay.store import BlockStore
from tests.faults._child import Child, run
from tests.faults._place import Place, settle
from tests.faults._victim import struck
from tests.faults._world import Block, Progress

KEPT: Final = [Block(i, 60_000) for i in range(20)]
ASKING: Final = 5  # the dataset that wants room
IDLE_S: Final = 600.0  # unread for this long, a dataset gives way


def small(folder: Path) -> Place:
    """Lay out a store that eight segments fill."""
    return Place.under(folder, quota="24MiB", high=0.35)


def put_all(link: Connection, place: Place, ttl_s: float | None) -> None:
    """Body: put the kept blocks, and close."""
    with place.open() as store:
        for block in KEPT:
            assert store.put(block.key, block.data, ttl_s=ttl_s)


def present(store: BlockStore) -> int:
    """Count the kept blocks that are there."""
    return sum(store.contains(block.key) for block in KEPT)


def ask_for_room(store: BlockStore) -> None:
    """Fill what is left of the tier from another dataset, and go on asking through rounds of maintenance."""
    for round_number in range(3):
        for i in range(150):
            block = Block(1000 * round_number + 10_000 + i, 60_000, dataset=ASKING)
            store.put(block.key, block.data, dataset=ASKING)
        store.maintain()
        store.maintain()


@pytest.mark.parametrize("point", ["row.claimed", "open.judged", "close.saved"])
def test_a_kill_around_recovery_keeps_blocks_that_expire(point: str, memory_path: Path) -> None:
    place = small(memory_path)
    run(put_all, place, 3600.0)
    with Child(struck, place, point, "kill", [], Progress()) as victim:
        assert victim.exit_code() == -signal.SIGKILL

    def reopen(link: Connection) -> int:
        with place.open() as store:
            return present(store)

    assert run(reopen) == len(KEPT)


def test_a_restart_does_not_make_a_dataset_look_unread(memory_path: Path) -> None:
    place = small(memory_path)
    run(put_all, place, None)

    def restart(link: Connection) -> list[int]:
        found = []
        with place.open() as store:
            ask_for_room(store)
            found.append(present(store))
            store.advance_clock(IDLE_S + 10)
            ask_for_room(store)
            found.append(present(store))
        return found

    before, after = run(restart)
    assert before == len(KEPT)
    assert after < before, "and after ten minutes it gives way"


def test_a_dataset_that_was_never_read_is_not_the_first_to_go(memory_path: Path) -> None:
    place = small(memory_path)

    def load_then_ask(link: Connection) -> int:
        with place.open() as store:
            for block in KEPT:
                assert store.put(block.key, block.data)
            ask_for_room(store)
            return present(store)

    assert run(load_then_ask) == len(KEPT)


def test_reads_while_nobody_maintains_count_as_reads(memory_path: Path) -> None:
    place = small(memory_path)
    run(put_all, place, None)

    def read_then_ask(link: Connection) -> int:
        with place.open() as store:
            for block in KEPT:
                with store.get(block.key) or memoryview(b"") as view:
                    assert view == block.data
            ask_for_room(store)
            return present(store)

    assert run(read_then_ask) == len(KEPT)


def test_pins_survive_a_kill(memory_path: Path) -> None:
    place = small(memory_path)
    run(put_all, place, None)

    def pin_and_die(link: Connection) -> None:
        store = place.open()
        assert all(store.pin(block.key) for block in KEPT)
        signal.raise_signal(signal.SIGKILL)

    with Child(pin_and_die) as victim:
        assert victim.exit_code() == -signal.SIGKILL

    def reopen(link: Connection) -> int:
        with place.open() as store:
            assert store.status()["tiers"][0]["pinned_bytes"] == sum(block.length_bytes for block in KEPT)
            store.advance_clock(2 * IDLE_S)
            ask_for_room(store)
            settle(store)
            return present(store)

    assert run(reopen) == len(KEPT)
