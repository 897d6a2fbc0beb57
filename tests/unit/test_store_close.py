"""Closing: views outlive it, calls of other threads finish, what is garbage ends properly."""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forebay.config import KIB, MIB
from forebay.errors import Closed
from forebay.store import BlockStore, Claim, FileReservation, Reservation, View
from tests.unit._stores import Stores, maintain, noise

DATA = noise(300_000)


@pytest.fixture
def watcher(stores: Stores) -> Iterator[BlockStore]:
    """Another opener of the same cache, which sees the rows of the others come and go."""
    store = stores.open()
    yield store
    store.close()


def rows_used(store: BlockStore) -> int:
    used = store.status()["rows"]["used"]
    assert isinstance(used, int)
    return used


def in_garbage(*values: object) -> None:
    """Leave values in a cycle that nothing else refers to."""
    cycle: list[object] = list(values)
    cycle.append(cycle)


def test_views_outlive_the_store_and_the_last_one_really_closes_it(
    stores: Stores, watcher: BlockStore
) -> None:
    store = stores.reopen()
    store.put(b"k", DATA)
    first, second = store.get(b"k"), store.get(b"k")
    assert first is not None
    assert second is not None
    part = memoryview(second)[1000:2000]
    store.close()
    assert rows_used(watcher) == 2
    with pytest.raises(Closed):
        store.get(b"k")
    watcher.free_dataset(0)
    for number in range(1000):
        watcher.put(b"%d" % number, noise(50_000, number))
    assert first == DATA
    first.release()
    assert rows_used(watcher) == 2
    del second
    assert part == DATA[1000:2000]
    del part
    assert rows_used(watcher) == 1
    maintain(watcher, lambda: watcher.status()["tiers"][0]["segments_held"] == 0)


def test_a_store_that_is_dropped_with_views_out_is_closed_by_the_last(
    stores: Stores, watcher: BlockStore
) -> None:
    store = BlockStore(stores.path, maintainer=False)
    store.put(b"k", DATA)
    view = store.get(b"k")
    del store
    gc.collect()
    assert view == DATA
    assert rows_used(watcher) == 2
    del view
    assert rows_used(watcher) == 1


def test_private_views_outlive_the_store_too(stores: Stores) -> None:
    store = stores.open(stores.tier(medium="SSD"))
    store.put(b"k", DATA)
    view = store.get(b"k")
    store.close()
    assert view == DATA


@pytest.mark.parametrize("how", ["commit", "abandon", "drop"])
def test_a_reservation_outlives_the_close(stores: Stores, watcher: BlockStore, how: str) -> None:
    store = BlockStore(stores.path, maintainer=False)
    reservation = store.reserve(b"k", 5)
    memoryview(reservation)[:] = b"value"
    store.close()
    assert rows_used(watcher) == 2
    if how == "commit":
        assert reservation.commit()
    elif how == "abandon":
        reservation.abandon()
    del reservation
    assert rows_used(watcher) == 1
    assert watcher.contains(b"k") == (how == "commit")


def test_the_context_closes(stores: Stores) -> None:
    with stores.open() as store:
        store.put(b"k", DATA)
    with pytest.raises(Closed):
        store.get(b"k")
    assert stores.reopen().get(b"k") == DATA


def test_a_clean_close_leaves_nothing_outside_and_is_trusted(stores: Stores) -> None:
    store = stores.open(stores.tier(medium="SSD"))
    live_path = store.status()["index"]["live_path"]
    store.put(b"k", DATA)
    store.close()
    assert not Path(live_path).exists()
    again = stores.reopen()
    assert not again.status()["index"]["rebuilding"]
    assert again.get(b"k") == DATA
    assert again.status()["counters"]["rebuilt_segments"] == 0


def test_a_store_pickles_as_its_configuration(stores: Stores) -> None:
    store = stores.open(checksum="read", max_held_bytes=5 * MIB)
    store.put(b"k", DATA)
    other = pickle.loads(pickle.dumps(store))
    with other:
        assert other.path == store.path
        assert other.get(b"k") == DATA
        assert other.status()["max_held_bytes"] == 5 * MIB
        assert other.status()["rows"]["own"] != store.status()["rows"]["own"]


def long_check(store: BlockStore) -> object:
    return store.check().ok


def many_gets(store: BlockStore) -> object:
    return [view is not None for view in (store.get(b"%d" % number) for number in range(60))] == [True] * 60


def many_puts(store: BlockStore) -> object:
    return [store.put(b"more %d" % number, DATA) for number in range(20)] == [True] * 20


def statuses(store: BlockStore) -> object:
    return [store.status()["blocks"] >= 60 for _ in range(20)] == [True] * 20


def reserves(store: BlockStore) -> object:
    reservations = [store.reserve(b"%d" % number, MIB) for number in range(30)]
    for reservation in reservations:
        reservation.abandon()
    return [reservation.admitted for reservation in reservations] == [False] * 30


def deletes(store: BlockStore) -> object:
    return [store.delete(b"%d" % number) for number in range(60)] == [True] * 60


@pytest.mark.parametrize("call", [long_check, many_gets, many_puts, statuses, reserves, deletes])
def test_a_close_in_another_thread_lets_a_call_finish(
    stores: Stores, call: Callable[[BlockStore], object]
) -> None:
    """The call ends as if the store were open, or says that it is closed; it never meets freed memory."""
    stores.open(stores.tier(256 * MIB, "SSD")).close()
    for delay_s in (0.0, 0.0002, 0.001, 0.003, 0.01):
        store = stores.reopen()
        for number in range(60):
            store.put(b"%d" % number, DATA)
        begun = threading.Event()

        def run(store: BlockStore = store, begun: threading.Event = begun) -> object:
            begun.set()
            try:
                return call(store)
            except Closed:
                return "closed"

        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(run)
            begun.wait()
            threading.Event().wait(delay_s)
            store.close()
            assert result.result() in (True, "closed")
        assert store.views == 0


def test_a_reservation_in_a_garbage_cycle_is_given_up(stores: Stores) -> None:
    store = stores.open()
    reservation = store.reserve(b"k", 100)
    with pytest.raises(BufferError), reservation as buffer:
        kept = buffer[:10]
    in_garbage(reservation, kept, buffer)
    del reservation, kept, buffer
    gc.collect()
    assert store.views == 0
    assert store.status()["holders"] == []


def test_whatever_is_garbage_ends_with_its_store_intact(stores: Stores) -> None:
    store = stores.open()
    store.put(b"k", DATA)
    claim = store.claim(b"fetched")
    assert claim.leader
    in_garbage(store.reserve(b"r", 100), store.reserve_file(b"f", 2 * MIB), claim, store.get(b"k"))
    del claim
    gc.collect()
    assert store.views == 0
    assert store.status()["holders"] == []
    assert store.claim(b"fetched").leader
    assert store.put(b"r", DATA)


@pytest.mark.parametrize("kind", [View, Reservation, FileReservation, Claim])
def test_what_a_store_gives_cannot_be_made_by_hand(kind: type) -> None:
    with pytest.raises(TypeError, match="made by"):
        kind()


def test_what_was_never_opened_is_closed() -> None:
    store = BlockStore.__new__(BlockStore)
    with pytest.raises(Closed):
        store.get(b"k")
    store.close()
    claim = Claim.__new__(Claim)
    assert claim.wait(0)
    claim.progress()
    claim.done()


def test_opening_twice_is_refused_and_leaves_the_first_alone(stores: Stores) -> None:
    store = stores.open()
    store.put(b"k", DATA)
    with pytest.raises(ValueError, match="open already"):
        store.__init__(stores.path)  # type: ignore[misc]
    assert store.get(b"k") == DATA


def test_two_handles_of_one_process_are_two_openers(stores: Stores) -> None:
    first, second = stores.open(), stores.open()
    first.put(b"k", DATA)
    assert second.get(b"k") == DATA
    assert first.status()["rows"]["used"] == 2
    first.close()
    assert second.get(b"k") == DATA
    second.close()
    assert stores.reopen().get(b"k") == DATA


def test_a_store_that_is_closed_again_and_again_keeps_what_it_has(stores: Stores) -> None:
    for number in range(10):
        store = stores.open()
        assert store.put(b"%d" % number, noise(64 * KIB, number))
        store.close()
    store = stores.reopen()
    for number in range(10):
        assert store.get(b"%d" % number) == noise(64 * KIB, number)
    assert store.status()["counters"]["admitted"] == 10
