"""Reservations: a block filled in place, published on a clean exit and given up on any other."""

from __future__ import annotations

import numpy
import pytest

from forebay.config import KIB, MIB
from forebay.store import BlockStore, Reservation
from tests.unit._stores import Stores, counting, leases, maintain, noise


@pytest.fixture(params=["MEM", "SSD", "recycled"])
def store(request: pytest.FixtureRequest, stores: Stores) -> BlockStore:
    """Where a buffer is private memory that is written out, and where it is the segment itself."""
    if request.param != "recycled":
        return stores.open(stores.tier(medium=request.param))
    store = stores.open(stores.tier(4 * MIB))
    # A segment that has been filled and freed some times is mapped for writing.
    for _ in range(5):
        for number in range(8):
            store.put(b"%d" % number, noise(400 * KIB))
        store.free_dataset(0)
        store.maintain()
    return store


def outcome(reservation: Reservation) -> bool | None:
    return reservation.admitted


@pytest.mark.parametrize("length", [0, 1, 64, 64 * KIB, 64 * KIB + 1, 900_000])
def test_what_is_written_is_the_block(store: BlockStore, length: int) -> None:
    with store.reserve(b"k", length) as buffer:
        assert (buffer.nbytes, buffer.format, buffer.readonly) == (length, "B", False)
        assert store.get(b"k") is None
        buffer[:] = noise(length)
    assert store.get(b"k") == noise(length)
    assert store.check().ok
    assert leases(store) == 0


def test_the_block_before_is_there_until_the_new_one_is(store: BlockStore) -> None:
    store.put(b"k", b"before")
    reservation = store.reserve(b"k", 5)
    with reservation as buffer:
        buffer[:] = b"after"
        assert store.get(b"k") == b"before"
    assert reservation.admitted is True
    assert store.get(b"k") == b"after"


def test_an_exception_gives_up(store: BlockStore) -> None:
    store.put(b"k", b"before")
    reservation = store.reserve(b"k", 5)
    changes = counting(store)

    def fail() -> None:
        with reservation as buffer:
            buffer[:] = b"wrong"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert reservation.admitted is False
    assert store.get(b"k") == b"before"
    assert changes().keys() == {f"hits_{medium(store)}", f"hit_bytes_{medium(store)}"}
    assert leases(store) == 0
    assert store.check().ok


def medium(store: BlockStore) -> str:
    name = store.status()["tiers"][0]["medium"]
    assert isinstance(name, str)
    return name.lower()


def test_an_exception_is_not_hidden_by_an_array_that_still_uses_the_buffer(store: BlockStore) -> None:
    arrays = []

    def fail() -> None:
        with store.reserve(b"k", 100) as buffer:
            arrays.append(numpy.frombuffer(buffer, dtype=numpy.uint8))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.get(b"k") is None
    assert arrays[0].nbytes == 100


@pytest.mark.parametrize("export", ["slice", "array"])
def test_a_buffer_in_use_at_the_end_is_an_error_and_the_block_given_up(
    store: BlockStore, export: str
) -> None:
    reservation = store.reserve(b"k", 100)
    with pytest.raises(BufferError, match="in use"), reservation as buffer:
        kept = buffer[:10] if export == "slice" else numpy.frombuffer(buffer, dtype=numpy.uint8)
    assert reservation.admitted is False
    with pytest.raises(ValueError, match="ended"):
        reservation.commit()
    with pytest.raises(ValueError, match="ended"):
        memoryview(reservation)
    kept[0] = 1
    assert leases(store) <= 1
    del kept, buffer
    assert leases(store) == 0
    assert store.get(b"k") is None
    with pytest.raises(ValueError, match="ended"):
        reservation.commit()
    assert store.put(b"k", b"after")
    assert store.check().ok


def test_without_room_there_is_a_buffer_all_the_same(stores: Stores) -> None:
    store = stores.open(stores.tier(4 * MIB))
    while store.put(b"%d" % store.status()["blocks"], noise(100_000)):
        pass
    changes = counting(store)
    reservation = store.reserve(b"k", 200_000)
    with reservation as buffer:
        buffer[:] = noise(200_000)
        assert bytes(buffer) == noise(200_000)
    assert reservation.admitted is False
    assert store.get(b"k") is None
    assert changes() == {"not_admitted": 1, "not_admitted_bytes": 200_000, "misses_not_admitted": 1}


def test_by_hand_it_is_committed_or_abandoned_once(store: BlockStore) -> None:
    reservation = store.reserve(b"k", 5)
    assert outcome(reservation) is None
    with memoryview(reservation) as buffer:
        buffer[:] = b"value"
        with pytest.raises(BufferError, match="in use"):
            reservation.commit()
    assert reservation.commit()
    with pytest.raises(ValueError, match="ended"):
        reservation.commit()
    reservation.abandon()
    assert reservation.admitted is True
    assert store.get(b"k") == b"value"
    other = store.reserve(b"other", 5)
    other.abandon()
    other.abandon()
    assert other.admitted is False
    assert store.get(b"other") is None


def test_it_is_entered_once(store: BlockStore) -> None:
    reservation = store.reserve(b"k", 5)
    with reservation as buffer:
        buffer[:] = b"value"
        with pytest.raises(ValueError, match="once"):
            reservation.__enter__()
    with pytest.raises(ValueError, match="once"):
        reservation.__enter__()
    assert store.get(b"k") == b"value"


def test_one_that_is_dropped_is_given_up(store: BlockStore) -> None:
    reservation = store.reserve(b"k", 5)
    assert leases(store) == 1
    del reservation
    assert leases(store) == 0
    assert store.views == 0
    assert store.get(b"k") is None


def test_the_last_to_commit_wins(store: BlockStore) -> None:
    first, second = store.reserve(b"k", 5), store.reserve(b"k", 6)
    memoryview(first)[:] = b"first"
    memoryview(second)[:] = b"second"
    assert second.commit()
    assert first.commit()
    assert store.get(b"k") == b"first"
    assert store.status()["blocks"] == 1


def test_what_is_reserved_keeps_its_segment(stores: Stores) -> None:
    store = stores.open()
    store.put(b"neighbour", b"gone")
    reservation = store.reserve(b"k", 5)
    memoryview(reservation)[:] = b"value"
    with pytest.raises(OSError, match="busy"):
        store.free_dataset(0)
    assert reservation.commit()
    store.free_dataset(0)
    assert store.get(b"k") is None
    maintain(store, lambda: store.status()["tiers"][0]["used_bytes"] == 0)


@pytest.mark.parametrize("size", [-1, 1 << 64])
def test_sizes_out_of_range(store: BlockStore, size: int) -> None:
    with pytest.raises(OverflowError):
        store.reserve(b"k", size)
    assert store.views == 0
