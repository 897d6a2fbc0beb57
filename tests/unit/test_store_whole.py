"""Whole-file segments: readable by block while they fill, one contiguous view once they are complete."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forebay.config import KIB, MIB
from forebay.store import BlockStore, FileReservation
from tests.unit._stores import Stores, counting, maintain, noise, rebuilt

BLOCK = 256 * KIB
SIZE = 3 * MIB + 12_345
FILE = noise(SIZE)


def key(number: int) -> bytes:
    return b"f/%d" % number


def blocks(data: bytes = FILE, block: int = BLOCK) -> list[bytes]:
    return [data[offset : offset + block] for offset in range(0, len(data), block)]


def fill(store: BlockStore, name: bytes = b"f", data: bytes = FILE, dataset: int = 0) -> FileReservation:
    with store.reserve_file(name, len(data), dataset=dataset, block_bytes=BLOCK) as file:
        for number, block in enumerate(blocks(data)):
            assert file.write(number, name + b"/%d" % number, block)
    return file


def fill_but_the_last(store: BlockStore) -> FileReservation:
    file = store.reserve_file(b"f", SIZE, block_bytes=BLOCK)
    for number in range(12):
        assert file.write(number, key(number), blocks()[number])
    return file


def whole_files(stores: Stores) -> list[Path]:
    return sorted(path for path in Path(stores.tier().path).rglob("whole-*") if path.stat().st_size)


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    return stores.open(stores.tier(128 * MIB))


def test_complete_it_is_one_contiguous_view(store: BlockStore) -> None:
    file = fill(store)
    assert file.admitted
    assert file.complete
    view = store.get_file(b"f")
    assert view is not None
    assert view.zero_copy
    assert len(view) == SIZE
    assert view == FILE
    for number, block in enumerate(blocks()):
        assert store.get(key(number)) == block
    status = store.status()
    assert status["tiers"][0]["segments_whole"] == 1
    assert status["committed_bytes"] == SIZE
    assert store.check().ok


def test_blocks_that_differ_may_be_written_by_several_threads_at_once(store: BlockStore) -> None:
    with store.reserve_file(b"f", SIZE, block_bytes=BLOCK) as file, ThreadPoolExecutor(8) as pool:
        numbers = range(len(blocks()))
        written = list(pool.map(file.write, numbers, map(key, numbers), blocks()))
    assert written == [True] * len(written)
    assert file.complete
    assert store.get_file(b"f") == FILE
    assert store.check().ok


def test_blocks_can_be_read_as_they_come_in_any_order_and_the_whole_only_at_the_end(
    store: BlockStore,
) -> None:
    with store.reserve_file(b"f", SIZE, block_bytes=BLOCK) as file:
        order = [5, 0, 12, *(number for number in range(12) if number not in (0, 5))]
        for place, number in enumerate(order):
            for later in order[place:]:
                assert store.get(key(later)) is None
            assert file.write(number, key(number), blocks()[number])
            assert store.get(key(number)) == blocks()[number]
            assert store.get_file(b"f") is None
    assert store.get_file(b"f") == FILE


def test_a_view_of_a_block_is_a_part_of_the_file(store: BlockStore) -> None:
    fill(store)
    whole, block = store.get_file(b"f"), store.get(key(3))
    assert whole is not None
    assert whole[3 * BLOCK : 4 * BLOCK] == block


def test_an_incomplete_file_is_refused_at_the_end_and_given_up(store: BlockStore) -> None:
    file = fill_but_the_last(store)
    with pytest.raises(ValueError, match="before all its blocks were written"):
        file.finish()
    assert not file.complete
    assert store.get_file(b"f") is None
    assert store.get(key(0)) is None
    maintain(store, lambda: store.status()["tiers"][0]["segments_whole"] == 0)
    assert store.check().ok


def test_an_exception_gives_up(stores: Stores, store: BlockStore) -> None:

    def fail() -> None:
        with store.reserve_file(b"f", SIZE, block_bytes=BLOCK) as file:
            for number, block in enumerate(blocks()):
                file.write(number, key(number), block)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert store.get_file(b"f") is None
    assert store.status()["blocks"] == 0
    assert whole_files(stores) == []


@pytest.mark.parametrize("end", ["finish", "drop"])
def test_what_was_given_up_stays_under_a_view(stores: Stores, store: BlockStore, end: str) -> None:
    file = store.reserve_file(b"f", SIZE, block_bytes=BLOCK)
    file.write(0, key(0), blocks()[0])
    view = store.get(key(0))
    if end == "finish":
        assert not file.finish(keep=False)
    del file
    assert store.get(key(0)) is None
    assert view == blocks()[0]
    assert store.status()["tiers"][0]["segments_held"] == 1
    del view
    maintain(store, lambda: store.status()["tiers"][0]["segments_held"] == 0)
    assert whole_files(stores) == []


def test_a_file_that_is_too_small_or_too_large_for_its_tier_is_not_admitted(store: BlockStore) -> None:
    tier = store.status()["tiers"][0]
    for size in (tier["segment_bytes"] - 1, tier["quota_bytes"] // 16 + 1):
        with store.reserve_file(b"f", size) as file:
            assert not file.admitted
            assert not file.write(0, key(0), bytes(64 * KIB))
        assert not file.complete
        assert store.get(key(0)) is None
    with store.reserve_file(b"f", tier["segment_bytes"]) as file:
        assert file.admitted
        file.finish(keep=False)


@pytest.mark.parametrize(
    ("size", "block"), [(0, BLOCK), (SIZE, 0), (SIZE, 32 * KIB), (SIZE, 100 * KIB), (SIZE, 128 * MIB)]
)
def test_sizes_that_cannot_be(store: BlockStore, size: int, block: int) -> None:
    with pytest.raises(ValueError, match="sizes out of range"):
        store.reserve_file(b"f", size, block_bytes=block)
    assert store.views == 0


def test_a_block_has_its_own_length_and_place(store: BlockStore) -> None:
    with store.reserve_file(b"f", SIZE, block_bytes=BLOCK) as file:
        for number, data in ((0, bytes(BLOCK - 1)), (0, bytes(BLOCK + 1)), (12, bytes(BLOCK)), (13, b"")):
            with pytest.raises(ValueError, match=f"block {number} does not have {len(data)} bytes"):
                file.write(number, key(number), data)
        with pytest.raises(OverflowError):
            file.write(-1, key(0), bytes(BLOCK))
        file.finish(keep=False)


@pytest.mark.parametrize("length", [1, 1_000, 64 * KIB, 100_000, BLOCK])
def test_a_block_may_come_in_pieces_of_any_length(store: BlockStore, length: int) -> None:
    data = FILE if length >= 1_000 else FILE[-12_345:] * 100
    with store.reserve_file(b"f", len(data), block_bytes=BLOCK) as file:
        for number, block in enumerate(blocks(data)):
            parts = (block[start : start + length] for start in range(0, len(block), length))
            assert file.write_pieces(number, key(number), parts)
            assert store.get(key(number)) == block
    assert store.get_file(b"f") == data
    assert store.check().ok


def test_of_a_block_that_is_in_no_piece_is_asked_for(store: BlockStore) -> None:
    file = fill_but_the_last(store)
    assert file.write_pieces(0, key(0), (pytest.fail("asked for") for _ in range(1)))
    assert file.write_pieces(12, key(12), [blocks()[12]])
    assert file.finish()
    assert store.get_file(b"f") == FILE


def test_pieces_that_break_off_leave_the_block_to_be_written_again(store: BlockStore) -> None:
    def breaking_off() -> Iterator[bytes]:
        yield bytes(100)
        raise ConnectionResetError

    with store.reserve_file(b"f", SIZE, block_bytes=BLOCK) as file:
        for number, block in enumerate(blocks()):
            with pytest.raises(ConnectionResetError):
                file.write_pieces(number, key(number), breaking_off())
            with pytest.raises(TypeError):
                file.write_pieces(number, key(number), [b"1", "2"])  # type: ignore[list-item]
            assert store.get(key(number)) is None
            assert file.write_pieces(number, key(number), [block[:5], b"", block[5:]])
    assert store.get_file(b"f") == FILE
    assert store.check().ok


@pytest.mark.parametrize("pieces", [[], [bytes(BLOCK - 1)], [bytes(BLOCK), b"1"]])
def test_pieces_that_are_not_the_block_are_refused(store: BlockStore, pieces: list[bytes]) -> None:
    came = sum(map(len, pieces))
    with store.reserve_file(b"f", SIZE, block_bytes=BLOCK) as file:
        with pytest.raises(ValueError, match=f"block 1 does not have {came} bytes"):
            file.write_pieces(1, key(1), pieces)
        assert store.get(key(1)) is None
        file.finish(keep=False)


def test_a_file_given_up_between_two_pieces_takes_no_more(stores: Stores, store: BlockStore) -> None:
    file = fill_but_the_last(store)

    def pieces() -> Iterator[bytes]:
        yield blocks()[12][:1_000]
        assert not file.finish(keep=False)
        yield blocks()[12][1_000:]
        pytest.fail("asked for more")

    assert not file.write_pieces(12, key(12), pieces())
    assert not file.complete
    assert store.status()["blocks"] == 0
    maintain(store, lambda: store.status()["tiers"][0]["segments_whole"] == 0)
    assert whole_files(stores) == []


def test_a_file_may_be_given_up_under_those_who_write_it(stores: Stores, store: BlockStore) -> None:
    for _ in range(20):
        file = store.reserve_file(b"f", SIZE, block_bytes=BLOCK)
        begun = threading.Barrier(5)

        def write(number: int, file: FileReservation = file, begun: threading.Barrier = begun) -> bool:
            begun.wait()
            return file.write_pieces(number, key(number), [blocks()[number]])

        with ThreadPoolExecutor(4) as pool:
            written = [pool.submit(write, number) for number in range(4)]
            begun.wait()
            file.finish(keep=False)
            for future in written:
                # It was in before, did not go in, or came when the file was given up already.
                assert future.exception() is None or "ended" in str(future.exception())
        assert store.status()["blocks"] == 0
        with pytest.raises(ValueError, match="ended"):
            file.write(0, key(0), blocks()[0])
    maintain(store, lambda: store.status()["tiers"][0]["segments_whole"] == 0)
    assert whole_files(stores) == []
    assert store.check().ok


def test_it_ends_once(store: BlockStore) -> None:
    file = fill(store)
    assert file.finish()
    assert file.finish(keep=False)
    with pytest.raises(ValueError, match="ended"):
        file.write(0, key(0), blocks()[0])
    with pytest.raises(ValueError, match="ended"):
        file.__enter__()
    assert store.get_file(b"f") == FILE


def test_delete_forgets_the_whole_and_leaves_its_blocks(store: BlockStore) -> None:
    fill(store)
    assert store.delete(b"f")
    assert not store.delete(b"f")
    assert store.get_file(b"f") is None
    assert store.get(key(0)) == blocks()[0]


def test_the_file_s_own_key_is_no_block(store: BlockStore) -> None:
    fill(store)
    assert store.get(b"f") is None
    assert not store.contains(b"f")
    assert store.readinto(b"f", bytearray(10)) is None
    assert not store.pin(b"f")
    assert not store.expire(b"f", 0)
    assert store.get_file(key(0)) is None
    assert store.get_file(b"f") == FILE


def test_a_file_written_again_takes_the_place_of_the_first(stores: Stores, store: BlockStore) -> None:
    fill(store)
    held = store.get_file(b"f")
    newer = noise(SIZE, 1)
    fill(store, data=newer)
    assert store.get_file(b"f") == newer
    assert store.get(key(2)) == blocks(newer)[2]
    assert held == FILE
    del held
    maintain(store, lambda: store.status()["tiers"][0]["segments_whole"] == 1)
    assert len(whole_files(stores)) == 1
    assert store.get_file(b"f") == newer


def test_it_is_evicted_as_a_whole(stores: Stores, store: BlockStore) -> None:
    store.set_retention(1, "lru")
    fill(store, dataset=1)
    store.set_retention(2, "lru")
    number = 0
    while store.get_file(b"f") is not None:
        assert store.put(b"%d" % number, noise(60_000, number), dataset=2)
        store.maintain()
        number += 1
    assert [store.contains(key(block)) for block in range(13)] == [False] * 13
    assert whole_files(stores) == []
    assert store.status()["counters"]["evicted"] >= 13
    assert store.check().ok


def test_a_pinned_block_outlives_its_file(store: BlockStore) -> None:
    store.set_retention(1, "lru")
    fill(store, dataset=1)
    assert store.pin(key(4))
    store.set_retention(2, "lru")
    for number in range(4000):
        store.put(b"%d" % number, noise(60_000, number), dataset=2)
        store.maintain()
    assert store.get_file(b"f") is None
    assert store.get(key(4)) == blocks()[4]
    assert store.get(key(5)) is None


def test_freed_with_its_dataset(stores: Stores, store: BlockStore) -> None:
    fill(store, b"a", dataset=1)
    fill(store, b"b", dataset=2)
    store.free_dataset(1)
    assert store.get_file(b"a") is None
    assert store.get_file(b"b") == FILE
    assert len(whole_files(stores)) == 1


def damage(stores: Stores, offset: int) -> None:
    (path,) = whole_files(stores)
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


def test_reopened_it_is_verified_once(stores: Stores, store: BlockStore) -> None:
    fill(store)
    store.close()
    store = stores.reopen()
    assert store.get_file(b"f") == FILE
    damage(stores, SIZE - 1)
    assert store.get_file(b"f") is not None
    store.close()
    store = stores.reopen()
    changes = counting(store)
    assert store.get_file(b"f") is None
    assert changes() == {"misses_checksum": 1}
    assert store.get_file(b"f") is None
    assert store.get(key(12)) is None
    assert store.get(key(11)) == blocks()[11]


def test_with_checksum_read_it_is_verified_every_time(stores: Stores) -> None:
    store = stores.open(stores.tier(128 * MIB), checksum="read")
    fill(store)
    assert store.get_file(b"f") == FILE
    damage(stores, 0)
    assert store.get_file(b"f") is None
    assert store.get(key(0)) is None
    assert store.get(key(1)) == blocks()[1]


def test_with_checksum_none_it_is_taken_on_trust(stores: Stores) -> None:
    store = stores.open(stores.tier(128 * MIB), checksum="none")
    fill(store)
    damage(stores, 0)
    store.close()
    view = stores.reopen(checksum="none").get_file(b"f")
    assert view is not None
    assert view[1:] == FILE[1:]


def test_a_lost_index_is_rebuilt_with_its_whole_files(stores: Stores, store: BlockStore) -> None:
    fill(store)
    store.close()
    os.unlink(stores.path / "v1" / "index")
    store = rebuilt(stores.open(stores.tier(128 * MIB)))
    assert store.get_file(b"f") == FILE
    assert [store.get(key(number)) for number in range(13)] == blocks()


@pytest.mark.parametrize("checksum", ["none", "load", "read"])
def test_a_lost_index_is_rebuilt_without_files_of_which_a_block_is_missing(
    stores: Stores, checksum: str
) -> None:
    """Its last block is there, so that its table looks as long as a complete one."""
    store = stores.open(stores.tier(128 * MIB), checksum=checksum)
    fill(store)
    assert store.delete(key(3))
    store.close()
    os.unlink(stores.path / "v1" / "index")
    store = rebuilt(stores.open(stores.tier(128 * MIB), checksum=checksum))
    assert store.get_file(b"f") is None
    assert store.get(key(3)) is None
    assert store.get(key(4)) == blocks()[4]


def test_who_holds_too_much_reads_by_block(stores: Stores) -> None:
    store = stores.open(stores.tier(128 * MIB), max_held_bytes=2 * MIB)
    fill(store, b"a", dataset=1)
    view = store.get_file(b"a")
    store.free_dataset(1)
    store.maintain()
    fill(store, b"b")
    assert store.get_file(b"b") is None
    block = store.get(b"b/0")
    assert block == blocks()[0]
    assert block is not None
    assert not block.zero_copy
    assert view == FILE
    del view
    store.maintain()
    assert store.get_file(b"b") == FILE


def test_on_disk_it_is_read_by_block_unless_views_are_mapped(stores: Stores) -> None:
    tier = stores.tier(128 * MIB, "SSD")
    store = stores.open(tier)
    fill(store)
    assert store.get_file(b"f") is None
    assert store.get(key(7)) == blocks()[7]
    assert stores.open(tier, disk_views="map").get_file(b"f") == FILE
