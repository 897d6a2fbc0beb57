"""The index and what stands beside it damaged, gone or somebody else's: found when it is opened, and mended.

Segments are whole in all of these, so what comes back is at least 99 % of the blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.config import KIB
from forebay.errors import ConfigError
from forebay.store import BlockStore
from tests.faults._damage import CacheFolder, block, count, flip, rebuilt
from tests.faults._damage_layout import (
    PAGE_BYTES,
    SUPER_BYTES,
    IndexSuper,
    first_page_offset,
    load,
    slot_offsets,
)
from tests.faults.conftest import MakeFolder

BLOCKS = 150
SIZE = 20_000


def _leave(folder: CacheFolder, how: str) -> None:
    """A store that was closed cleanly, or whose only process was killed."""
    if how == "closed":
        folder.made(BLOCKS, SIZE)
    else:
        folder.left_dead(BLOCKS, SIZE)


ENDS = ["closed", "killed"]


def _garbage(path: Path, length_bytes: int | None = None) -> None:
    path.write_bytes(os.urandom(path.stat().st_size if length_bytes is None else length_bytes))


INDEX_DAMAGE: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "half a superblock": lambda path: os.truncate(path, SUPER_BYTES // 2),
    "superblock only": lambda path: os.truncate(path, SUPER_BYTES),
    "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
    "the last page cut": lambda path: os.truncate(
        path, first_page_offset(load(path, IndexSuper)) + 24 * PAGE_BYTES - 1
    ),
    "random bytes": _garbage,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "another product's file": lambda path: path.write_bytes(b"SQLite format 3\0" + os.urandom(8 * KIB)),
    "a page of zeros": lambda path: _overwrite(
        path, first_page_offset(load(path, IndexSuper)), bytes(PAGE_BYTES)
    ),
}


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("what", INDEX_DAMAGE)
def test_a_damaged_index_is_rebuilt(make_folder: MakeFolder, what: str, end: str) -> None:
    folder = make_folder("SSD")
    _leave(folder, end)
    INDEX_DAMAGE[what](folder.index)
    with folder.open() as store:
        folder.warm(store)  # reads are served meanwhile, and none is wrong
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)
        assert count(store, "rebuilt_segments") >= len(folder.segments())
        assert store.check().ok
    with folder.open() as store:
        assert not store.status()["index"]["rebuilding"]
        assert folder.warm(store) == set(folder.sizes)


def test_tiers_are_remembered_over_the_loss_of_the_index(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    folder.made(BLOCKS, SIZE)
    folder.index.unlink()
    with BlockStore(folder.path, maintainer=False) as store:
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)
        assert store.status()["tiers"][0]["quota_bytes"] == folder.tiers[0].quota_bytes


def _is_used_anew(folder: CacheFolder) -> None:
    """Fill the store over and over: a slot that leads astray would now lead to other bytes."""
    with folder.open() as store:
        store.set_retention(0, "lru")
        store.set_retention(1, "lru")
        folder.warm(store)
        for number in range(1_000):
            store.put(b"more%d" % number, block(b"more", SIZE), dataset=1)
            if number % 16 == 0:
                store.maintain()
        folder.warm(store)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", [name for name, *_ in IndexSuper._fields_])
def test_a_flip_in_the_superblock(make_folder: MakeFolder, name: str, end: str) -> None:
    folder = make_folder("SSD")
    _leave(folder, end)
    flip(folder.index, int(getattr(IndexSuper, name).offset))
    with folder.open() as store:
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)
    _is_used_anew(folder)


PAGE_FIELDS = {"magic": 0, "number": 4, "first": 8, "span": 12}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("bit", [0, 5])
@pytest.mark.parametrize("name", PAGE_FIELDS)
def test_a_flip_in_a_pages_header(make_folder: MakeFolder, name: str, bit: int, end: str) -> None:
    folder = make_folder("SSD")
    _leave(folder, end)
    flip(
        folder.index,
        first_page_offset(load(folder.index, IndexSuper)) + 3 * PAGE_BYTES + PAGE_FIELDS[name],
        bit,
    )
    with folder.open() as store:
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)
        for key in folder.sizes:  # every part of the index can be written
            assert store.delete(key)
            assert store.put(key, block(key, SIZE))
        folder.heal(store)
    _is_used_anew(folder)


# Bit of a slot's 256: the fields of `place` and `extent` are bit fields.
SLOT_BITS = {
    "lo": 3,
    "lo, the page's part": 63,
    "check": 64 + 5,
    "state": 128,
    "state, second bit": 129,
    "pinned": 130,
    "whole": 131,
    "verified": 132,
    "record": 140,
    "unit": 154,
    "segment": 176,
    "segment, out of range": 191,
    "length": 192,
    "length, high": 192 + 26,
    "expiry": 192 + 27,
    "expiry, high": 192 + 58,
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", SLOT_BITS)
def test_a_flip_in_a_slot(make_folder: MakeFolder, where: str, end: str) -> None:
    folder = make_folder("SSD")
    _leave(folder, end)
    offset = slot_offsets(folder.index)[BLOCKS // 2] + SLOT_BITS[where] // 8
    flip(folder.index, offset, SLOT_BITS[where] % 8)
    with folder.open() as store:
        rebuilt(store)
        assert len(folder.warm(store)) >= 0.99 * BLOCKS
        folder.heal(store)
        store.check(repair=True)
        assert store.check().ok
    _is_used_anew(folder)


SAVED_SEGMENT_FIELDS = {
    "word, end": 0,
    "word, records": 3,
    "word, state": 7,
    "generation": 8,
    "dataset": 16,
    "flags": 20,
}


@pytest.mark.parametrize("bit", [0, 4, 6])
@pytest.mark.parametrize("name", SAVED_SEGMENT_FIELDS)
def test_a_flip_in_the_saved_table_of_segments(make_folder: MakeFolder, name: str, bit: int) -> None:
    folder = make_folder("SSD")
    folder.made(BLOCKS, SIZE)
    flip(folder.index, SUPER_BYTES + 64 + SAVED_SEGMENT_FIELDS[name], bit)
    with folder.open() as store:
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)
    _is_used_anew(folder)


# ---- identity ----


def _identity_of(folder: CacheFolder) -> Path:
    return folder.home / "identity"


IDENTITY_DAMAGE: dict[str, Callable[[Path], object]] = {
    "removed": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "random bytes": _garbage,
    "a flip in the id": lambda path: flip(path, 0),
    "a flip in the secret": lambda path: flip(path, 16),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("what", IDENTITY_DAMAGE)
def test_a_lost_identity_costs_the_blocks_and_nothing_else(
    make_folder: MakeFolder, what: str, end: str
) -> None:
    """Without the secret no key finds its block again; what lies there must not be in the way of new ones."""
    folder = make_folder("SSD")
    _leave(folder, end)
    live = Path(load(folder.index, IndexSuper).live_path.decode())
    IDENTITY_DAMAGE[what](_identity_of(folder))
    with folder.open() as store:
        rebuilt(store)
        assert folder.warm(store) == set()
        folder.heal(store)
        assert store.status()["tiers"][0]["committed_blocks"] == BLOCKS
        assert len(folder.segments()) <= BLOCKS * SIZE // 1_000_000 + 1, "the old files are still there"
    assert not live.exists(), "the killed process's table is left behind"
    with folder.open() as store:
        assert folder.warm(store) == set(folder.sizes)


def test_a_store_without_an_identity_does_not_overwrite_what_is_not_its_own(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    folder.home.mkdir(parents=True)
    folder.index.write_bytes(b"somebody else's")
    with pytest.raises(OSError, match="index"):
        folder.open()
    assert folder.index.read_bytes() == b"somebody else's"
    folder.index.unlink()
    with folder.open() as store:
        assert folder.fill(store, 3, SIZE)


def test_remembered_tiers_can_be_asked_for_only_where_there_are_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tiers given and none remembered"):
        BlockStore(tmp_path / "new")
