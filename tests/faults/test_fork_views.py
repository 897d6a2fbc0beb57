"""Views over fork: whoever holds one, its bytes stay, and nobody's death or release takes another's away."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from forebay.store import BlockStore, View
from tests.faults._child import Child, run
from tests.faults._held import BLOCK, held, recycle, still_right, take, with_block
from tests.faults._place import Place
from tests.faults._world import Block


@pytest.fixture
def place(memory_path: Path) -> Place:
    """A store of seven segments, with the block in it."""
    return with_block(Place.under(memory_path, quota="8MiB"))


def test_a_childs_view_outlives_its_parents_release_and_the_eviction(place: Place) -> None:
    def parent(link: Connection) -> None:
        with place.open() as store:
            view = take(store)
            with Child(still_right, view) as heir:
                assert heir.receive() == "forked"
                view.release()
                recycle(store)
                assert held(store) == (1, 1)
                heir.send("compare")
                assert heir.result()
            assert held(store) == (0, 0)

    run(parent)


def test_a_parents_view_outlives_its_childs_release_and_the_eviction(place: Place) -> None:
    def parent(link: Connection) -> None:
        with place.open() as store:
            view = take(store)

            def child(inner: Connection) -> None:
                view.release()
                recycle(store)

            run(child)
            assert held(store) == (1, 1)
            assert view == BLOCK.data
            view.release()
            assert held(store) == (0, 0)

    run(parent)


@pytest.mark.parametrize("generations", [2, 4])
def test_a_view_goes_down_the_generations(place: Place, generations: int) -> None:
    def live(link: Connection, store: BlockStore, view: View, left: int) -> bool:
        if left == 0:
            recycle(store)
            return view == BLOCK.data
        with Child(live, store, view, left - 1) as heir:
            view.release()
            return bool(heir.result())

    def first(link: Connection) -> bool:
        with place.open() as store:
            right = live(link, store, take(store), generations)
            assert held(store) == (0, 0)
            return right

    assert run(first)


def test_a_slice_of_a_view_goes_with_it(place: Place) -> None:
    def parent(link: Connection) -> bool:
        with place.open() as store:
            view = take(store)
            part = view[1000:2000]

            def child(inner: Connection) -> bool:
                inner.recv()
                return part == BLOCK.data[1000:2000]

            with Child(child) as heir:
                part.release()
                view.release()
                recycle(store)
                heir.send("compare")
                return bool(heir.result())

    assert run(parent)


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_views_of_a_child_that_ends_without_releasing_are_given_up(place: Place, end: str) -> None:
    def parent(link: Connection) -> None:
        with place.open() as store:
            view = take(store)

            def child(inner: Connection) -> None:
                own = take(store)
                inner.send(own == BLOCK.data)
                if end == "exit":
                    os._exit(0)
                inner.recv()

            with Child(child) as heir:
                assert heir.receive() is True
                view.release()
                recycle(store)
                heir.kill()
                assert heir.exit_code() == (0 if end == "exit" else -signal.SIGKILL)
            assert held(store) == (0, 0)
            assert store.status()["rows"]["used"] == 1

    run(parent)


def test_a_killed_parent_takes_nothing_from_its_child(place: Place) -> None:
    def parent(link: Connection) -> None:
        store = place.open()
        view = take(store)
        if os.fork() == 0:
            link.send("forked")
            link.recv()
            recycle(store)
            link.send(view == BLOCK.data)
            view.release()
            store.close()
            os._exit(0)
        link.recv()

    with Child(parent) as older:
        assert older.receive() == "forked"
        older.kill()
        assert older.exit_code() == -signal.SIGKILL
        assert older.ask("compare") is True


def test_a_child_puts_and_its_parent_reads_and_the_other_way(place: Place) -> None:
    ours, theirs = Block(2, 4000), Block(3, 5000)

    def parent(link: Connection) -> None:
        with place.open() as store:

            def child(inner: Connection) -> None:
                assert store.put(theirs.key, theirs.data)
                inner.send("put")
                inner.recv()
                with store.get(ours.key) or memoryview(b"") as view:
                    assert view == ours.data
                assert store.status()["rows"]["used"] == 2

            with Child(child) as heir:
                assert heir.receive() == "put"
                with store.get(theirs.key) or memoryview(b"") as view:
                    assert view == theirs.data
                assert store.put(ours.key, ours.data)
                heir.send("read")
                heir.result()
            assert store.status()["rows"]["used"] == 1

    run(parent)


def test_what_a_parent_fills_is_not_ended_by_its_child(place: Place) -> None:
    block = Block(4, 30_000)

    def parent(link: Connection) -> None:
        with place.open() as store:
            reservation = store.reserve(block.key, block.length_bytes)
            with memoryview(reservation) as buffer:
                buffer[:] = block.data

            def child(inner: Connection) -> None:
                assert not reservation.commit()
                assert store.get(block.key) is None

            run(child)
            assert reservation.commit()
            with store.get(block.key) or memoryview(b"") as view:
                assert view == block.data
            assert store.check().ok

    run(parent)


def test_a_view_held_while_its_block_is_evicted_keeps_its_bytes_and_its_space(place: Place) -> None:
    def hold(link: Connection) -> None:
        with place.open() as store, take(store) as view:
            recycle(store)
            assert view == BLOCK.data
            assert view.copy() == BLOCK.data
            assert held(store) == (1, 1)
            status = store.status()
            assert [holder["leases"] for holder in status["holders"]] == [1]
            before = status["tiers"][0]["free_bytes"]
            view.release()
            assert held(store) == (0, 0)
            tier = store.status()["tiers"][0]
            assert tier["free_bytes"] == before + tier["segment_bytes"]

    run(hold)
