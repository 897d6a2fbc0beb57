"""A fork while another thread is inside a call of the store: in the child that call never ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
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


def close_inherited(link: Connection, store: BlockStore, is_inside: Callable[[], bool]) -> None:
    """Body: close the store, saying whether the parent was inside of it, and wait."""
    was_inside = is_inside()
    store.close()
    link.send((was_inside, store.views))
    link.recv()


def closed_in_child(store: BlockStore, is_inside: Callable[[], bool]) -> bool:
    """Fork, and tell whether that was inside the call; if so, the child's row goes when it closes the store.

    A call lasts a second, which may be over before the fork where the machine is busy.
    """
    with Child(close_inherited, store, is_inside) as heir:
        was_inside, views = heir.receive()
        if was_inside:
            assert views == 0
            # The stopped process, and this one.
            assert store.status()["rows"]["used"] == 2
        heir.send("end")
        heir.result()
    return bool(was_inside)


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
            is_over = threading.Event()

            def delete() -> None:
                while not is_over.is_set():
                    with suppress(StoreBusy):
                        store.delete(BLOCK.key)

            thread = threading.Thread(target=delete)
            thread.start()
            wait_until(lambda: closed_in_child(store, lambda: store.views == 1), "forked inside the call")
            is_over.set()
            thread.join()

    run(parent)


def test_a_reservation_that_its_parent_was_committing_does_not_keep_a_childs_store(memory_path: Path) -> None:
    place = Place.under(memory_path)

    def parent(link: Connection) -> None:
        with opened_beside_one_stopped(place) as store:
            is_over = threading.Event()
            reservations = [store.reserve(BLOCK.key, BLOCK.length_bytes)]

            def is_being_committed() -> bool:
                try:
                    memoryview(reservations[-1]).release()
                except ValueError:
                    return store.views == 1
                return False

            def commit() -> None:
                while not reservations[-1].commit() and not is_over.is_set():
                    reservations.append(store.reserve(BLOCK.key, BLOCK.length_bytes))

            thread = threading.Thread(target=commit)
            thread.start()
            wait_until(lambda: closed_in_child(store, is_being_committed), "forked inside the call")
            is_over.set()
            thread.join()

    run(parent)
