"""Blocks in and out: sizes, keys, kinds of buffers, replacement, deletion."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from forebay.config import KIB, MIB
from forebay.errors import Closed
from forebay.store import BlockStore
from tests.unit._stores import Stores, noise

BORDERS = [
    0,
    1,
    7,
    8,
    63,
    64,
    65,
    4 * KIB,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    128 * KIB,
    MIB - 1,
    4 * MIB - 1,
    4 * MIB,
]


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    return stores.open()


@pytest.mark.parametrize("medium", ["MEM", "SSD"])
def test_every_length_comes_back_as_it_went_in(stores: Stores, medium: str) -> None:
    store = stores.open(stores.tier(256 * MIB, "SSD" if medium == "SSD" else "MEM"), block_bytes=4 * MIB)
    for length in BORDERS:
        assert store.put(b"%d" % length, noise(length))
    for length in BORDERS:
        view = store.get(b"%d" % length)
        assert view is not None
        assert len(view) == length
        assert bytes(view) == noise(length)
        assert view.zero_copy == (medium == "MEM")
    assert store.check().ok


def test_the_largest_block_has_64_mib(stores: Stores) -> None:
    store = stores.open(stores.tier(1024 * MIB, "SSD"), block_bytes=64 * MIB)
    data = memoryview(bytearray(noise(MIB) * 64))
    assert store.put(b"largest", data)
    view = store.get(b"largest")
    assert view is not None
    assert view == data
    with pytest.raises(ValueError, match="at most 67108864 bytes, not 67108865"):
        store.put(b"too large", bytes(64 * MIB + 1))
    with pytest.raises(ValueError, match="at most 67108864 bytes, not 67108865"):
        store.reserve(b"too large", 64 * MIB + 1)


def test_a_block_larger_than_a_segment_is_not_admitted(store: BlockStore) -> None:
    assert not store.put(b"large", bytes(2 * MIB))
    assert store.get(b"large") is None
    assert store.status()["counters"]["not_admitted"] == 1


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 4095, 4096])
def test_keys_of_every_length(store: BlockStore, length: int) -> None:
    key = noise(length)
    assert store.put(key, b"value")
    assert store.get(key) == b"value"
    assert store.get(key[:-1] + bytes([key[-1] ^ 1])) is None


@pytest.mark.parametrize("key", [b"", bytes(4097)])
def test_keys_out_of_range_are_refused_by_every_call(store: BlockStore, key: bytes) -> None:
    calls: list[Callable[[], object]] = [
        lambda: store.put(key, b""),
        lambda: store.get(key),
        lambda: store.get_many([key]),
        lambda: store.get_file(key),
        lambda: store.readinto(key, bytearray(1)),
        lambda: store.reserve(key, 1),
        lambda: store.reserve_file(key, 2 * MIB),
        lambda: store.delete(key),
        lambda: store.contains(key),
        lambda: key in store,
        lambda: store.claim(key),
        lambda: store.pin(key),
        lambda: store.unpin(key),
        lambda: store.expire(key, 1),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"1 to 4096 bytes, not {len(key)}"):
            call()


def test_a_key_is_bytes_and_nothing_like_it(store: BlockStore) -> None:
    for key in ("text", bytearray(b"k"), memoryview(b"k"), 1, None):
        with pytest.raises(TypeError):
            store.get(key)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            store.put(key, b"")  # type: ignore[arg-type]


def test_a_replaced_block_is_the_new_one_for_whoever_asks_next(store: BlockStore) -> None:
    store.put(b"k", b"first")
    before = store.get(b"k")
    store.put(b"k", b"second, and longer")
    assert store.get(b"k") == b"second, and longer"
    assert before == b"first"
    store.put(b"k", b"")
    assert store.get(b"k") == b""
    assert store.status()["blocks"] == 1
    assert store.status()["committed_bytes"] == 0


def test_delete_says_whether_there_was_something(store: BlockStore) -> None:
    assert not store.delete(b"k")
    store.put(b"k", b"value")
    held = store.get(b"k")
    assert store.delete(b"k")
    assert not store.delete(b"k")
    assert store.get(b"k") is None
    assert not store.contains(b"k")
    assert held == b"value"


def test_contains_neither_counts_nor_touches(store: BlockStore) -> None:
    store.put(b"k", b"value")
    before = store.status()["counters"]
    assert store.contains(b"k")
    assert b"k" in store
    assert b"absent" not in store
    assert store.status()["counters"] == before


def test_get_many_keeps_the_order_and_the_gaps(store: BlockStore) -> None:
    store.put(b"a", b"1")
    store.put(b"c", b"3")
    views = store.get_many([b"c", b"b", b"a", b"c"])
    assert [None if view is None else bytes(view) for view in views] == [b"3", None, b"1", b"3"]
    assert store.get_many([]) == []


@pytest.mark.parametrize("medium", ["MEM", "SSD"])
def test_readinto_copies_from_any_offset(stores: Stores, medium: str) -> None:
    store = stores.open(stores.tier(medium="SSD" if medium == "SSD" else "MEM"))
    data = noise(200_000)
    store.put(b"k", data)
    for offset in (0, 1, 65_535, 65_536, 199_999, 200_000, 200_001, 2**63):
        for length in (0, 1, 70_000, 300_000):
            target = bytearray(b"\xaa" * length)
            expected = data[offset : offset + length]
            assert store.readinto(b"k", target, offset) == len(expected)
            assert target == expected + b"\xaa" * (length - len(expected))
    assert store.readinto(b"absent", bytearray(8)) is None


def test_readinto_asks_for_a_writable_contiguous_buffer_and_a_sound_offset(store: BlockStore) -> None:
    store.put(b"k", b"value")
    with pytest.raises(BufferError):
        store.readinto(b"k", b"12345")
    with pytest.raises(BufferError):
        store.readinto(b"k", memoryview(bytearray(10))[::2])
    with pytest.raises(OverflowError):
        store.readinto(b"k", bytearray(5), -1)
    array: Any = numpy.zeros(5, dtype=numpy.uint8)
    assert store.readinto(b"k", array) == 5
    assert array.tobytes() == b"value"


def test_put_takes_every_contiguous_buffer(store: BlockStore) -> None:
    numbers: Any = numpy.arange(1000, dtype=numpy.float64).reshape(10, 100)
    for data in (b"bytes", bytearray(b"array"), memoryview(b"a view")[2:], numbers, memoryview(numbers)):
        assert store.put(b"k", data)
        assert store.get(b"k") == memoryview(data).tobytes()


def test_put_refuses_what_is_no_contiguous_buffer(store: BlockStore) -> None:
    store.put(b"k", b"before")
    grid: Any = numpy.arange(100, dtype=numpy.uint8).reshape(10, 10)
    for data in (memoryview(b"0123456789")[::2], grid[:, ::2], grid.T):
        with pytest.raises((BufferError, ValueError)):
            store.put(b"k", data)
    for nothing in ("text", 5, None, [1, 2]):
        with pytest.raises(TypeError):
            store.put(b"k", nothing)  # type: ignore[arg-type]
    assert store.get(b"k") == b"before"


def test_put_of_a_view_of_the_same_store(store: BlockStore) -> None:
    data = noise(300_000)
    store.put(b"from", data)
    view = store.get(b"from")
    assert view is not None
    assert store.put(b"to", view)
    assert store.put(b"part", view[1000:2000])
    assert store.put(b"from", view[::1])
    assert store.get(b"to") == data
    assert store.get(b"part") == data[1000:2000]
    assert store.get(b"from") == data
    assert view == data


def test_a_buffer_that_changes_size_while_it_is_put_is_held_fast(store: BlockStore) -> None:
    data = bytearray(noise(100_000))
    assert store.put(b"k", data)
    data.clear()
    assert store.get(b"k") == noise(100_000)


def test_a_hundred_thousand_blocks_split_the_index_and_all_are_found(store: BlockStore) -> None:
    pages = store.status()["index"]["pages"]
    for number in range(100_000):
        assert store.put(b"key %d" % number, b"%d" % number)
    assert store.status()["index"]["pages"] > pages
    assert store.status()["blocks"] == 100_000
    for number in random.Random(1).sample(range(100_000), 20_000):
        assert store.get(b"key %d" % number) == b"%d" % number
    assert store.get(b"key 100000") is None
    assert store.check(data=False).ok


def test_a_store_without_room_says_no_and_keeps_what_it_has(stores: Stores) -> None:
    store = stores.open(stores.tier(8 * MIB))
    admitted = [number for number in range(400) if store.put(b"%d" % number, noise(30_000, number))]
    assert 200 < len(admitted) < 280
    assert admitted == list(range(len(admitted)))
    for number in admitted:
        assert store.get(b"%d" % number) == noise(30_000, number)
    assert store.get(b"399") is None


def test_a_closed_store_says_so_from_every_call(store: BlockStore) -> None:
    store.close()
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.get(b"k"),
        lambda: store.get_many([b"k"]),
        lambda: store.get_file(b"k"),
        lambda: store.readinto(b"k", bytearray(1)),
        lambda: store.put(b"k", b""),
        lambda: store.reserve(b"k", 1),
        lambda: store.reserve_file(b"k", 2 * MIB),
        lambda: store.delete(b"k"),
        lambda: store.contains(b"k"),
        lambda: store.claim(b"k"),
        lambda: store.pin(b"k"),
        lambda: store.unpin(b"k"),
        lambda: store.expire(b"k", None),
        lambda: store.set_retention(0, "lru"),
        lambda: store.free_dataset(0),
        store.status,
        store.check,
        store.maintain,
        lambda: store.advance_clock(1),
    ]
    for call in calls:
        with pytest.raises(Closed, match=os.path.basename(store.path)):
            call()
