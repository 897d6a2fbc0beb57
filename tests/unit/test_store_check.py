"""check finds nothing in a sound store, what was planted in a damaged one, and repair leaves the rest."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.config import MIB
from forebay.store import BlockStore, CheckReport
from tests.unit._stores import Stores, noise

COUNT = 60
LENGTH = 100_000
RECORD_BYTES = 64
STATE_OFFSET = 60


def fill(store: BlockStore) -> None:
    for number in range(COUNT):
        assert store.put(b"%d" % number, noise(LENGTH, number))


def right(store: BlockStore) -> list[int]:
    """Say which blocks come back; every one of them is what was put."""
    found = []
    for number in range(COUNT):
        view = store.get(b"%d" % number)
        if view is not None:
            assert view == noise(LENGTH, number)
            found.append(number)
    return found


def segments(stores: Stores, medium: str) -> list[Path]:
    return sorted(Path(stores.tier(medium="SSD" if medium == "SSD" else "MEM").path).rglob("seg-*"))


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


def where_is(path: Path, number: int) -> int:
    """Find a block's bytes in its segment; -1 if they are in another."""
    return path.read_bytes().find(noise(LENGTH, number)[:64])


def corrupt_data(path: Path) -> None:
    flip(path, where_is(path, 0) + LENGTH - 1)


def corrupt_chunk_sums(path: Path) -> None:
    flip(path, where_is(path, 0) + LENGTH + 1)


def corrupt_record(path: Path) -> None:
    flip(path, path.stat().st_size - RECORD_BYTES)


def corrupt_record_state(path: Path) -> None:
    flip(path, path.stat().st_size - RECORD_BYTES + STATE_OFFSET)


DAMAGES = [corrupt_data, corrupt_chunk_sums, corrupt_record, corrupt_record_state]


@pytest.fixture(params=["MEM", "SSD"])
def medium(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def store(stores: Stores, medium: str) -> BlockStore:
    store = stores.open(stores.tier(medium="SSD" if medium == "SSD" else "MEM"))
    fill(store)
    return store


def test_a_sound_store_is_sound_in_every_figure(store: BlockStore) -> None:
    status = store.status()
    report = store.check()
    assert report == CheckReport(
        pages=status["index"]["pages"],
        slots=COUNT,
        records=COUNT,
        segments=status["tiers"][0]["segments_open"] + status["tiers"][0]["segments_sealed"],
        bytes_verified=COUNT * LENGTH,
        bad_pages=0,
        bad_slots=0,
        bad_records=0,
        bad_checksums=0,
        orphan_records=0,
        repaired=0,
        first="",
    )
    assert report.ok
    assert store.check(data=False).bytes_verified == 0


def test_a_store_with_a_past_is_sound(stores: Stores) -> None:
    store = stores.open(stores.tier(16 * MIB), stores.tier(32 * MIB, "SSD"))
    store.set_retention(1, "s3fifo")
    store.set_retention(2, "lru")
    choice = random.Random(5)
    views = []
    for number in range(4000):
        key = b"%d" % choice.randrange(1500)
        match choice.randrange(8):
            case 0 | 1 | 2 | 3:
                store.put(key, noise(choice.randrange(60_000), number), dataset=choice.randrange(3))
            case 4 | 5:
                views.append(store.get(key))
                del views[:-20]
            case 6:
                store.delete(key)
            case 7:
                store.expire(key, choice.choice([None, 100]))
        if number % 50 == 0:
            store.advance_clock(10)
            store.maintain()
    report = store.check()
    assert report.ok
    assert report.first == ""
    assert report.bad_records == 0
    views.clear()
    store.close()
    again = stores.reopen()
    assert again.check().ok
    assert again.status()["committed_bytes"] == again.check().bytes_verified


@pytest.mark.parametrize("damage", DAMAGES)
def test_planted_damage_is_found_named_and_repaired(
    stores: Stores, store: BlockStore, medium: str, damage: Callable[[Path], None]
) -> None:
    damage(segments(stores, medium)[0])
    found = store.check()
    assert not found.ok
    assert found.bad_slots + found.bad_checksums == 1
    assert found.first
    assert found.repaired == 0
    repaired = store.check(repair=True)
    assert repaired.ok
    assert repaired.repaired == 1
    assert store.check().ok
    assert right(store) == list(range(1, COUNT))
    assert store.put(b"0", noise(LENGTH, 0))
    assert right(store) == list(range(COUNT))


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_a_counted_miss_at_the_first_read_after_a_restart(
    stores: Stores, store: BlockStore, medium: str, damage: Callable[[Path], None]
) -> None:
    store.close()
    damage(segments(stores, medium)[0])
    store = stores.reopen()
    before = store.status()["counters"]["misses_checksum"]
    assert right(store) == list(range(1, COUNT))
    assert store.status()["counters"]["misses_checksum"] == before + 1
    assert right(store) == list(range(1, COUNT))
    assert store.status()["counters"]["misses_checksum"] == before + 1
    assert store.check().ok


@pytest.mark.parametrize("damage", [corrupt_data, corrupt_chunk_sums])
def test_checksum_read_finds_damage_while_the_store_is_open(
    stores: Stores, medium: str, damage: Callable[[Path], None]
) -> None:
    store = stores.open(stores.tier(medium="SSD" if medium == "SSD" else "MEM"), checksum="read")
    fill(store)
    assert right(store) == list(range(COUNT))
    damage(segments(stores, medium)[0])
    assert right(store) == list(range(1, COUNT))
    assert store.status()["counters"]["misses_checksum"] == 1
    assert store.readinto(b"0", bytearray(LENGTH)) is None


def test_every_bit_of_a_small_block_is_covered(stores: Stores) -> None:
    store = stores.open(checksum="read")
    data = noise(50)
    for bit in range(0, 400, 7):
        store.put(b"k", data)
        assert store.get(b"k") == data
        path = segments(stores, "MEM")[0]
        with path.open("r+b") as file:
            offset = file.read().rfind(data) + bit // 8
            file.seek(offset)
            file.write(bytes([data[bit // 8] ^ 1 << bit % 8]))
        assert store.get(b"k") is None


def test_swapped_blocks_are_not_taken_for_each_other(stores: Stores, store: BlockStore, medium: str) -> None:
    store.close()
    path = segments(stores, medium)[0]
    first, second = where_is(path, 0), where_is(path, 1)
    with path.open("r+b") as file:
        file.seek(first)
        file.write(noise(LENGTH, 1))
        file.seek(second)
        file.write(noise(LENGTH, 0))
    assert right(stores.reopen()) == list(range(2, COUNT))


def test_a_reader_without_the_right_to_write_finds_but_does_not_repair(
    stores: Stores, store: BlockStore, medium: str
) -> None:
    reader = stores.reopen(read_only=True)
    assert reader.check().ok
    corrupt_data(segments(stores, medium)[0])
    assert not reader.check(repair=True).ok
    assert not store.check().ok
    assert reader.status()["blocks"] == COUNT
