"""Blocks joined to requests: what lies side by side, in pieces of the right size."""

from __future__ import annotations

import pytest

from forebay.cache.blocks import JOIN_BYTES_MAX, PART_BYTES, Gather, Prefetch, Run, blocks_of, runs_of
from forebay.cache.datasets import Attached, Source
from forebay.config import KIB, MIB
from forebay.meta import Dataset, Entry

RECORD = Dataset("d", "file:///", 7)
ATTACHED = Attached(RECORD, Source(RECORD, {}), "d")


def runs(size: int, block_bytes: int, *hits: int) -> list[Run]:
    entry = Entry("a", size, 0, "v", False, 0)
    blocks = blocks_of(ATTACHED, entry, 0, size, block_bytes)
    return runs_of(ATTACHED, [block for block in blocks if block.number not in hits], Prefetch())


@pytest.mark.parametrize(
    ("size", "block_bytes", "hits", "sizes"),
    [
        (1, MIB, (), [1]),
        (5 * MIB + 1, MIB, (), [5 * MIB + 1]),
        (16 * MIB, 4 * MIB, (), [16 * MIB]),
        (16 * MIB + 1, 4 * MIB, (), [8 * MIB, 8 * MIB, 1]),
        (5 * MIB, MIB, (2,), [2 * MIB, 2 * MIB]),
        (5 * MIB, MIB, (0, 4), [3 * MIB]),
        (64 * MIB, 64 * MIB, (), [64 * MIB]),
        (128 * MIB, 64 * MIB, (), [64 * MIB, 64 * MIB]),
        # Of very many there are half as many.
        (511 * MIB, 4 * MIB, (), [8 * MIB] * 63 + [7 * MIB]),
        (513 * MIB, 4 * MIB, (), [16 * MIB] * 32 + [MIB]),
        # So many blocks have places in the table of flights at once, and no more.
        (10 * MIB, 64 * KIB, (), [4 * MIB, 4 * MIB, 2 * MIB]),
    ],
)
def test_what_lies_side_by_side_is_one_request(
    size: int, block_bytes: int, hits: tuple[int, ...], sizes: list[int]
) -> None:
    found = runs(size, block_bytes, *hits)
    assert [run.size_bytes for run in found] == sizes
    numbers = [block.number for run in found for block in run.blocks]
    assert numbers == [number for number in range(-(-size // block_bytes)) if number not in hits]


def test_requests_have_their_bounds() -> None:
    assert PART_BYTES < JOIN_BYTES_MAX
    assert max(run.size_bytes for run in runs(100 * MIB, 4 * MIB)) == PART_BYTES
    assert runs(0, MIB) == []


def test_a_gathered_range_takes_its_part_of_each_block() -> None:
    data = bytes(range(250)) * 10
    entry = Entry("a", len(data), 0, "v", False, 0)
    buffer = bytearray(1_500)
    sink = Gather(memoryview(buffer), 600)
    for block in blocks_of(ATTACHED, entry, 600, 2_100, 512):
        sink.take(block, memoryview(data)[block.offset : block.end], admitted=True)
    assert buffer == data[600:2_100]


def test_room_is_given_only_for_what_is_wanted_as_a_whole() -> None:
    buffer = memoryview(bytearray(1_000))
    sink = Gather(buffer, 500)
    assert sink.room(499, 10) is None
    assert sink.room(1_495, 10) is None
    room = sink.room(1_000, 500)
    assert room is not None
    room[:] = b"x" * 500
    assert bytes(buffer) == bytes(500) + b"x" * 500
