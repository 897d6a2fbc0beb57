"""A fork while another thread is inside a call of the store: in the child that call never ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from forebay.errors import StoreBusy
from forebay.store import BlockStore
from tests.faults._child import Child, run, wait_until
from tests.faults._place import Place
from tests.faults._points import arm
from tests.faults._world import Block

BLOCK: Final = Block(1, 50_000)


def stop_inside(link: Connection, place: Place) -> None:
    """Body: stop while holding the lock of the block's page in the index."""
    arm("index.locked", "stop")
    with place.open() as store:
        store.put(BLOCK.key, BLOCK.data)


def close_inherited(link: Connection, store: BlockStore) -> None:
    """Body: close the store that the parent is inside of, and wait."""
    assert store.views == 1
    store.close()
    link.send(store.views)
    link.recv()


def expect_closed_in_child(store: BlockStore) -> None:
    """Fork, and hold the child to giving up its row when it closes the store."""
    with Child(close_inherited, store) as heir:
        assert heir.receive() == 0
        # The stopped process, and this one.
        assert store.status()["rows"]["used"] == 2
        heir.send("end")
        heir.result()


@contextmanager
def opened_beside_one_stopped(place: Place) -> Iterator[BlockStore]:
    """Open a store in which calls that change the block wait for a second, in vain."""
    with Child(stop_inside, place) as stopped:
        assert stopped.wait_stopped()
        with place.open() as store:
            yield store
            assert store.views == 0
        stopped.resume()
        stopped.result()


def test_a_child_closes_a_store_that_its_parent_was_inside_of(memory_path: Path) -> None:
    place = Place.under(memory_path)

    def parent(link: Connection) -> None:
        with opened_beside_one_stopped(place) as store:

            def delete() -> None:
                with suppress(StoreBusy):
                    store.delete(BLOCK.key)

            thread = threading.Thread(target=delete)
            thread.start()
            wait_until(lambda: store.views == 1, "the thread is inside the call")
            expect_closed_in_child(store)
            thread.join()

    run(parent)


def test_a_reservation_that_its_parent_was_committing_does_not_keep_a_childs_store(memory_path: Path) -> None:
    place = Place.under(memory_path)

    def parent(link: Connection) -> None:
        with opened_beside_one_stopped(place) as store:
            reservation = store.reserve(BLOCK.key, BLOCK.length_bytes)

            def is_being_committed() -> bool:
                try:
                    memoryview(reservation).release()
                except ValueError:
                    return True
                return False

            thread = threading.Thread(target=reservation.commit)
            thread.start()
            wait_until(is_being_committed, "the thread is inside the call")
            expect_closed_in_child(store)
            thread.join()

    run(parent)
