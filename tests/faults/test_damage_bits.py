"""One bit flips in a segment: at every kind of offset, in memory and on disk, found when it is promised.

checksum="load" promises it at the first read after a restart, "read" at each read. A block that no longer is
what was put is a miss; every other block stays.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults._damage import MEDIA, CacheFolder, block, count, flip, rebuilt
from tests.faults._damage_layout import (
    CHUNK_BYTES,
    Record,
    SegmentSuper,
    record_offset,
)
from tests.faults.conftest import MakeFolder

SMALL, LARGE = 5_000, 200_000  # one checksum; four chunks, each with its own
VICTIM = b"small3"
LARGE_VICTIM = b"large1"

ENTRY_FIELDS = [name for name, *_ in Record._fields_]
SUPER_FIELDS = [name for name, *_ in SegmentSuper._fields_]


@pytest.fixture(params=MEDIA)
def folder(make_folder: MakeFolder, request: pytest.FixtureRequest) -> CacheFolder:
    """Small and large blocks on one medium."""
    folder = make_folder(request.param)
    with folder.open() as store:
        folder.fill(store, 20, SMALL, "small")
        folder.fill(store, 6, LARGE, "large")
    return folder


def _data(key: bytes, at: Callable[[int], int]) -> Callable[[CacheFolder], tuple[Path, int]]:
    def place(folder: CacheFolder) -> tuple[Path, int]:
        path, offset = folder.place_of(key)
        return path, offset + at(folder.sizes[key])

    return place


def _entry(name: str) -> Callable[[CacheFolder], tuple[Path, int]]:
    def place(folder: CacheFolder) -> tuple[Path, int]:
        path, offset = folder.place_of(VICTIM)
        return path, record_offset(path, offset) + int(getattr(Record, name).offset)

    return place


def _sums(at: Callable[[int], int]) -> Callable[[CacheFolder], tuple[Path, int]]:
    def place(folder: CacheFolder) -> tuple[Path, int]:
        path, offset = folder.place_of(LARGE_VICTIM)
        chunks = -(-LARGE // CHUNK_BYTES)
        return path, offset + (LARGE + 7) // 8 * 8 + at(chunks * 4)

    return place


FLIPS: dict[str, tuple[bytes, Callable[[CacheFolder], tuple[Path, int]]]] = {
    "first data byte": (VICTIM, _data(VICTIM, lambda _: 0)),
    "middle data byte": (VICTIM, _data(VICTIM, lambda size: size // 2)),
    "last data byte": (VICTIM, _data(VICTIM, lambda size: size - 1)),
    "first byte of a large block": (LARGE_VICTIM, _data(LARGE_VICTIM, lambda _: 0)),
    "last byte of the first chunk": (LARGE_VICTIM, _data(LARGE_VICTIM, lambda _: CHUNK_BYTES - 1)),
    "first byte of the last chunk": (
        LARGE_VICTIM,
        _data(LARGE_VICTIM, lambda size: size // CHUNK_BYTES * CHUNK_BYTES),
    ),
    "last byte of a large block": (LARGE_VICTIM, _data(LARGE_VICTIM, lambda size: size - 1)),
    "first chunk checksum": (LARGE_VICTIM, _sums(lambda _: 0)),
    "last chunk checksum": (LARGE_VICTIM, _sums(lambda size: size - 1)),
    **{f"table entry: {name}": (VICTIM, _entry(name)) for name in ENTRY_FIELDS},
}


@pytest.mark.parametrize("what", FLIPS)
def test_a_flip_at_rest_is_found_at_the_first_read(folder: CacheFolder, what: str) -> None:
    victim, place = FLIPS[what]
    flip(*place(folder))
    with folder.open() as store:
        assert folder.warm(store) == set(folder.sizes) - {victim}
        assert count(store, "misses_checksum") == 1
        assert not store.contains(victim)
        folder.heal(store)
        assert store.check().bad_checksums == 0


@pytest.mark.parametrize("what", FLIPS)
def test_a_flip_while_open_is_found_at_the_next_read(folder: CacheFolder, what: str) -> None:
    victim, place = FLIPS[what]
    with folder.open(checksum="read") as store:
        assert folder.warm(store) == set(folder.sizes)
        flip(*place(folder))
        assert folder.warm(store) == set(folder.sizes) - {victim}
        assert count(store, "misses_checksum") == 1
        folder.heal(store)


@pytest.mark.parametrize("what", FLIPS)
def test_a_flip_does_not_survive_a_rebuild(folder: CacheFolder, what: str) -> None:
    victim, place = FLIPS[what]
    flip(*place(folder))
    folder.index.unlink()
    with folder.open() as store:
        rebuilt(store)
        # Sequence and owner say nothing of the bytes, but lie under the entry's sum.
        assert folder.warm(store) == set(folder.sizes) - {victim}
        folder.heal(store)


@pytest.mark.parametrize("name", SUPER_FIELDS)
def test_a_flip_in_a_segments_superblock_costs_at_most_that_segment(folder: CacheFolder, name: str) -> None:
    path, _ = folder.place_of(VICTIM)
    inside = {key for key in folder.sizes if folder.place_of(key)[0] == path}
    assert inside < set(folder.sizes)
    offset = int(getattr(SegmentSuper, name).offset)
    flip(path, offset + (ctypes.sizeof(ctypes.c_uint64) if name == "store_id" else 0))
    with folder.open() as store:
        # The index knows all that the superblock says.
        assert folder.warm(store) == set(folder.sizes)
    folder.index.unlink()
    with folder.open() as store:
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes) - inside
        folder.heal(store)


def test_checksums_can_be_left_out(folder: CacheFolder) -> None:
    path, offset = folder.place_of(VICTIM)
    flip(path, offset)
    right = block(VICTIM, SMALL)
    with folder.open(checksum="none") as store:
        view = store.get(VICTIM)
        assert view is not None
        assert view[:] == bytes([right[0] ^ 1]) + right[1:]  # documented: given out as it lies there
        view.release()
        assert count(store, "misses_checksum") == 0
