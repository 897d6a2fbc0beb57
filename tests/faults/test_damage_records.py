"""Records in the wrong place: swapped, copied under another key, damaged before their place is used anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.config import KIB, MIB, Medium
from forebay.store import BlockStore
from tests.faults._damage import INDEXES, MEDIA, CacheFolder, block, count, expect_lost, flip, rebuilt
from tests.faults._damage_layout import RECORD_BYTES, Record, SegmentSuper, crc32c, load, record_offset, save
from tests.faults.conftest import MakeFolder

SIZE = 20_000
ONE, OTHER = b"k3", b"k7"


def _swap(path: Path, one: int, other: int, length_bytes: int) -> None:
    content = path.read_bytes()
    first, second = content[one : one + length_bytes], content[other : other + length_bytes]
    with path.open("r+b") as file:
        for offset, data in ((one, second), (other, first)):
            file.seek(offset)
            file.write(data)


def _copy(path: Path, source: int, target: int, length_bytes: int) -> None:
    data = path.read_bytes()[source : source + length_bytes]
    with path.open("r+b") as file:
        file.seek(target)
        file.write(data)


class _Pair:
    """Two blocks of one segment: where data and entries lie."""

    def __init__(self, folder: CacheFolder) -> None:
        self.path, self.one = folder.place_of(ONE)
        other_path, self.other = folder.place_of(OTHER)
        assert other_path == self.path
        self.one_entry = record_offset(self.path, self.one)
        self.other_entry = record_offset(self.path, self.other)

    def swap_data(self) -> None:
        _swap(self.path, self.one, self.other, SIZE)

    def swap_entries(self) -> None:
        _swap(self.path, self.one_entry, self.other_entry, RECORD_BYTES)

    def swap_both(self) -> None:
        self.swap_data()
        self.swap_entries()

    def copy_data(self) -> None:
        _copy(self.path, self.other, self.one, SIZE)

    def copy_entry(self) -> None:
        _copy(self.path, self.other_entry, self.one_entry, RECORD_BYTES)

    def copy_both(self) -> None:
        """The whole record of OTHER lies where ONE was; it still says that its data is where it was."""
        self.copy_data()
        self.copy_entry()

    def copy_under_ones_place(self) -> None:
        """As copy_both, but the entry names the new place, with its sum right."""
        unit = load(self.path, Record, self.one_entry).unit
        self.copy_both()
        record = load(self.path, Record, self.one_entry)
        record.unit = unit
        record.self_crc = crc32c(bytes(record)[: Record.self_crc.offset])
        save(self.path, record, self.one_entry)


# What is done, and the blocks that may be lost by it: with the index, and when it is rebuilt from entries.
MISPLACEMENTS: dict[str, tuple[Callable[[_Pair], None], set[bytes], set[bytes]]] = {
    "data swapped": (_Pair.swap_data, {ONE, OTHER}, {ONE, OTHER}),
    "entries swapped": (_Pair.swap_entries, {ONE, OTHER}, set()),
    "data and entries swapped": (_Pair.swap_both, {ONE, OTHER}, {ONE, OTHER}),
    "data copied": (_Pair.copy_data, {ONE}, {ONE}),
    "entry copied": (_Pair.copy_entry, {ONE}, {ONE}),
    "data and entry copied": (_Pair.copy_both, {ONE}, {ONE}),
    "record copied under another key's place": (_Pair.copy_under_ones_place, {ONE}, {ONE}),
}


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("what", MISPLACEMENTS)
@pytest.mark.parametrize("medium", MEDIA)
def test_a_misplaced_record_is_a_miss(make_folder: MakeFolder, medium: Medium, what: str, index: str) -> None:
    folder = make_folder(medium)
    folder.made(20)
    act, lost_with_index, lost_without = MISPLACEMENTS[what]
    act(_Pair(folder))
    expect_lost(folder, index, lost_with_index if index == "trusted" else lost_without)


@pytest.mark.parametrize("medium", MEDIA)
@pytest.mark.parametrize("field", ["self_crc", "lo", "generation"])
def test_a_damaged_entry_leaves_no_slot_into_a_segment_used_anew(
    make_folder: MakeFolder, medium: Medium, field: str
) -> None:
    """The block was seen good in this run, so its slot alone would give out whatever lies there next."""
    folder = make_folder(medium)
    folder.made(20)
    with folder.open() as store:
        store.set_retention(0, "lru")
        assert folder.warm(store) == set(folder.sizes)
        path, offset = folder.place_of(ONE)
        flip(path, record_offset(path, offset) + getattr(Record, field).offset)
        for number in range(2_000):
            store.put(b"more%d" % number, block(b"more", SIZE))
            if number % 16 == 0:
                store.maintain()
        assert count(store, "segments_retired") > 2
        assert ONE not in folder.warm(store)


# ---- whole-file segments ----

FILE_BYTES, FILE_BLOCK = 2 * MIB, 256 * KIB


def _put_file(folder: CacheFolder, store: BlockStore, name: bytes) -> None:
    content = block(name, FILE_BYTES)
    with store.reserve_file(name, FILE_BYTES, block_bytes=FILE_BLOCK) as reservation:
        for number in range(FILE_BYTES // FILE_BLOCK):
            data = content[number * FILE_BLOCK : (number + 1) * FILE_BLOCK]
            assert reservation.write(number, name + b"/%d" % number, data)
    assert reservation.complete


def _file(store: BlockStore, name: bytes) -> bytes | None:
    view = store.get_file(name)
    if view is None:
        return None
    with view:
        return bytes(view)


@pytest.fixture
def files(make_folder: MakeFolder) -> CacheFolder:
    """A closed store with two whole files of one size, a in whole-000000 and b in whole-000001."""
    folder = make_folder("MEM", "64MiB")
    with folder.open() as store:
        for name in (b"a", b"b"):
            _put_file(folder, store, name)
    return folder


def _record_at(path: Path, number: int) -> int:
    return path.stat().st_size - 4 * KIB - (number + 1) * RECORD_BYTES


def test_a_block_of_another_file_in_a_whole_file_is_found(files: CacheFolder) -> None:
    a, b = files.segments()
    content_b = b.read_bytes()
    entry = _record_at(b, 3)
    with a.open("r+b") as file:
        for offset, length in ((3 * FILE_BLOCK, FILE_BLOCK), (entry, RECORD_BYTES), _sums_of(3)):
            file.seek(offset)
            file.write(content_b[offset : offset + length])
    with files.open() as store:
        assert _file(store, b"a") is None
        assert _file(store, b"b") == block(b"b", FILE_BYTES)
        _put_file(files, store, b"a")
        assert _file(store, b"a") == block(b"a", FILE_BYTES)


def _sums_of(number: int) -> tuple[int, int]:
    chunks = FILE_BLOCK // (64 * KIB)
    return FILE_BYTES + number * chunks * 4, chunks * 4


def test_two_blocks_of_a_whole_file_swapped_are_found(files: CacheFolder) -> None:
    a, _ = files.segments()
    _swap(a, 0, FILE_BLOCK, FILE_BLOCK)
    _swap(a, _sums_of(0)[0], _sums_of(1)[0], _sums_of(0)[1])
    with files.open() as store:
        assert _file(store, b"a") is None
        assert _file(store, b"b") == block(b"b", FILE_BYTES)


@pytest.mark.parametrize("index", INDEXES)
def test_whole_segments_with_their_names_exchanged_are_found(files: CacheFolder, index: str) -> None:
    a, b = files.segments()
    aside = a.with_name("aside")
    a.rename(aside)
    b.rename(a)
    aside.rename(b)
    if index == "lost":
        files.index.unlink()
    with files.open() as store:
        rebuilt(store)
        for name in (b"a", b"b"):
            assert _file(store, name) is None
            _put_file(files, store, name)
            assert _file(store, name) == block(name, FILE_BYTES)


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("part", ["data", "sum", "entry"])
def test_a_flip_in_a_whole_file(files: CacheFolder, part: str, index: str) -> None:
    a, _ = files.segments()
    flip(a, {"data": FILE_BYTES - 1, "sum": _sums_of(5)[0], "entry": _record_at(a, 5) + 4}[part])
    if index == "lost":
        files.index.unlink()
    with files.open() as store:
        rebuilt(store)
        assert _file(store, b"a") is None
        assert _file(store, b"b") == block(b"b", FILE_BYTES)
        _put_file(files, store, b"a")
        assert _file(store, b"a") == block(b"a", FILE_BYTES)


@pytest.mark.parametrize("name", [name for name, *_ in SegmentSuper._fields_])
def test_a_flip_in_a_whole_segments_superblock(files: CacheFolder, name: str) -> None:
    a, _ = files.segments()
    flip(a, a.stat().st_size - 4 * KIB + int(getattr(SegmentSuper, name).offset))
    files.index.unlink()
    with files.open() as store:
        rebuilt(store)
        assert _file(store, b"a") is None
        assert _file(store, b"b") == block(b"b", FILE_BYTES)
        _put_file(files, store, b"a")
        assert _file(store, b"a") == block(b"a", FILE_BYTES)
