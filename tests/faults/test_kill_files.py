"""Whole files whose writer is killed: what was written stays, what was complete is complete."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

from forebay.store import BlockStore
from tests.faults._child import Child, run
from tests.faults._place import Place, settle
from tests.faults._points import WHOLE
from tests.faults._victim import struck
from tests.faults._world import FILE_BLOCK_BYTES, Block, Progress, put_file

NAME: Final = b"a whole file"
BLOCKS: Final = [Block(i, FILE_BLOCK_BYTES if i < 17 else 5000, dataset=WHOLE) for i in range(18)]
WRITTEN: Final = 5  # blocks whose writing had returned

fates = pytest.mark.parametrize("had_it_open", [True, False], ids=["joined", "alone"])


def kill_in_file(place: Place, point: str, nth: int) -> None:
    """Kill a process that writes the file."""
    arguments = (place, point, "kill", [put_file(NAME, BLOCKS)], Progress(), nth)
    with Child(struck, *arguments) as victim:
        assert victim.exit_code() == -signal.SIGKILL


def after_kill(place: Place, point: str, nth: int, *, had_it_open: bool) -> BlockStore:
    """Kill the writer and return the store of a process that had it open, or opens it now."""
    if not had_it_open:
        kill_in_file(place, point, nth)
        return place.open()
    # The victim is forked first: a store that is open here would be inherited.
    store: list[BlockStore] = []

    def open_then_strike(link: Connection) -> None:
        link.recv()
        struck(link, place, point, "kill", [put_file(NAME, BLOCKS)], Progress(), nth)

    with Child(open_then_strike) as victim:
        store.append(place.open())
        victim.send("go")
        assert victim.exit_code() == -signal.SIGKILL
    return store[0]


def count_right(store: BlockStore, blocks: list[Block]) -> int:
    """Count the blocks that are there, each with its own bytes."""
    found = 0
    for block in blocks:
        view = store.get(block.key)
        if view is not None:
            with view:
                assert view == block.data
                found += 1
    return found


def put_whole(store: BlockStore) -> None:
    """Write the file once more, from the start."""
    put_file(NAME, BLOCKS).perform(store)


@fates
def test_blocks_of_a_file_cut_short_stay_and_the_file_can_be_written_again(
    had_it_open: bool, memory_path: Path
) -> None:
    place = Place.under(memory_path)
    with after_kill(place, "whole.written", WRITTEN + 1, had_it_open=had_it_open) as store:
        settle(store)
        assert store.get_file(NAME) is None
        assert count_right(store, BLOCKS) == WRITTEN
        put_whole(store)
        settle(store)
        assert count_right(store, BLOCKS) == len(BLOCKS)
        with store.get_file(NAME) or memoryview(b"") as whole:
            assert whole == b"".join(block.data for block in BLOCKS)
        assert store.status()["tiers"][0]["segments_whole"] == 1, "the first attempt's space came back"
        assert store.check().ok


@fates
def test_a_file_cut_short_is_freed_with_its_dataset(had_it_open: bool, memory_path: Path) -> None:
    place = Place.under(memory_path)
    with after_kill(place, "whole.written", WRITTEN + 1, had_it_open=had_it_open) as store:
        settle(store)
        store.free_dataset(WHOLE)
        assert count_right(store, BLOCKS) == 0
        assert store.status()["tiers"][0]["segments_whole"] == 0


@fates
def test_a_file_that_was_published_is_complete(had_it_open: bool, memory_path: Path) -> None:
    place = Place.under(memory_path)
    with after_kill(place, "whole.published", 1, had_it_open=had_it_open) as store:
        settle(store)
        assert count_right(store, BLOCKS) == len(BLOCKS)
        with store.get_file(NAME) or memoryview(b"") as whole:
            assert whole == b"".join(block.data for block in BLOCKS)


def test_a_file_cut_short_is_taken_up_by_a_rebuild(memory_path: Path) -> None:
    place = Place.under(memory_path)
    kill_in_file(place, "whole.written", WRITTEN + 1)
    place.lose_index()

    def rebuild(link: Connection) -> int:
        with place.open() as store:
            settle(store)
            assert store.get_file(NAME) is None
            assert store.check().ok
            return count_right(store, BLOCKS)

    assert run(rebuild) == WRITTEN
