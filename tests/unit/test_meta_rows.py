"""Rows of entries: what is packed comes back, what is damaged or makes no sense is none."""

from __future__ import annotations

import gc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.meta import Entry, entries_of
from forebay.meta._rows import count_objects, pack_entry, packed, placed, unpack_entries, unpack_entry
from forebay.meta.rows import (
    DIRECTORY,
    LONG_KEY_BYTES,
    OBJECT,
    DirectoryRow,
    inode_key,
    name_bytes,
    prefix_of,
)

ETAG = "0123456789abcdef0123456789abcdef"
PLACE = prefix_of(7)

numbers = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([0, 127, 128, 1 << 35, (1 << 64) - 1]))
times = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(-10, 10).map(lambda seconds: seconds * 10**9),
    st.sampled_from([-(1 << 63), (1 << 63) - 1, 1_700_000_000 * 10**9]),
)
texts = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.just("\udcff")), max_size=40)
versions = st.one_of(
    texts,
    st.from_regex(r"[0-9a-f]{32}(-[0-9]{1,11})?", fullmatch=True),
    st.sampled_from(["", ETAG, ETAG[:-1], ETAG + "0", f"{ETAG}-", f"{ETAG}-0", f"{ETAG}-01", f"{ETAG}\n"]),
)
names = st.one_of(
    texts.filter(lambda name: name and "/" not in name), st.sampled_from(["x" * 399, "x" * 900])
)


def key_of(name: str, kind: bytes = OBJECT) -> bytes:
    return PLACE + kind + name_bytes(name)


def directory(_path: str, _checked_ns: int) -> DirectoryRow:
    return DirectoryRow(7, 0, 0, 0, "d")


@given(names, numbers, times, versions, st.booleans(), numbers, numbers)
def test_what_is_packed_comes_back(
    name: str, size: int, mtime_ns: int, version: str, is_dir: bool, checked_ns: int, inode: int
) -> None:
    entry = Entry(f"d/{name}", size, mtime_ns, version, is_dir, checked_ns)
    key = key_of(name, DIRECTORY if is_dir else OBJECT)
    assert placed([entry], directory) == ({key: entry}, True)
    found = unpack_entry("d", key, pack_entry(key, entry, inode))
    assert found is not None
    assert type(found) is Entry
    assert tuple(found) == (*tuple(entry)[:-1], inode)


def test_a_usual_row_is_small() -> None:
    entry = Entry("d/a", 102_400, 1_700_000_000 * 10**9, ETAG, False, 10 * 86_400 * 10**9)
    assert len(pack_entry(key_of("a"), entry, 1 << 33)) <= 42


@pytest.mark.parametrize(
    "bad", [{"size": -1}, {"size": 1 << 64}, {"mtime_ns": 1 << 63}, {"checked_ns": -1}, {"version": "\ud800"}]
)
def test_what_no_storage_has_is_refused(bad: dict[str, object]) -> None:
    entry = Entry("d/a", 1, 1, "v", False, 1)._replace(**bad)  # type: ignore[arg-type]
    with pytest.raises((OverflowError, UnicodeEncodeError)):
        pack_entry(key_of("a"), entry, 1)


def test_new_entries_get_one_inode_after_another() -> None:
    entries = {key_of(name): Entry(f"d/{name}", 1, 1, "v", False, 1) for name in "abc"}
    entries[key_of("b")] = entries[key_of("b")]._replace(size=-1)
    rows, inodes = packed(sorted(entries), entries, 50)
    assert unpack_entries("d", rows, PLACE + b"\xff") == ([entries[key_of("a")], entries[key_of("c")]], 0)
    assert inodes == [(inode_key(50), key_of("a")[1:]), (inode_key(51), key_of("c")[1:])]


def test_directories_are_asked_for_once_for_entries_side_by_side() -> None:
    asked: list[tuple[str, int]] = []

    def find(path: str, checked_ns: int) -> DirectoryRow | None:
        asked.append((path, checked_ns))
        return {"": DirectoryRow(1, 0, 0, 0, ""), "d": DirectoryRow(2, 0, 6, 0, "d")}.get(path)

    paths = ["a", "b", "d/a", "d/b", "e/a", "d/c", "d/ü", "d/\udcff"]
    entries = [Entry(path, 1, 1, "v", False, 9) for path in paths]
    # Older than the one before, and void; older than what has the same key; of a name that no storage has.
    entries += [entries[-1]._replace(path="d/void", checked_ns=5), entries[0]._replace(checked_ns=8)]
    entries += [entries[0]._replace(path="\ud800")]
    found, is_complete = placed(entries, find)
    assert asked == [("", 9), ("d", 9), ("e", 9), ("d", 9), ("d", 5), ("", 8)]
    assert list(found.values()) == [entry for entry in entries[:8] if entry.path != "e/a"]
    assert not is_complete


def test_of_several_of_one_key_the_newest_is_kept() -> None:
    entries = [Entry("d/a", size, 1, "v", False, checked_ns) for size, checked_ns in enumerate((3, 5, 5, 4))]
    assert placed(entries, directory) == ({key_of("a"): entries[2]}, True)


@given(st.binary(max_size=80), st.booleans())
def test_a_value_that_makes_no_sense_is_no_entry(value: bytes, is_long: bool) -> None:
    """Its sum is right: it is bounds that are looked at here."""
    key = key_of("x" * 500) if is_long else key_of("a")
    assert (len(key) == LONG_KEY_BYTES) is is_long
    value += zlib.crc32(value, zlib.crc32(key)).to_bytes(4, "little")
    found = unpack_entry("d", key, value)
    assert found is None or found.path.startswith("d/")
    for length in range(len(value)):
        assert unpack_entry("d", key, value[:length]) is None
    assert unpack_entry("d", key[:5], value) is None


def test_a_value_is_no_other_key_s() -> None:
    value = pack_entry(key_of("a"), Entry("d/a", 1, 1, "v", False, 1), 1)
    assert unpack_entry("d", key_of("b"), value) is None
    rows = [(key_of("a"), value), (key_of("b"), value), (key_of("c"), b""), (key_of("d"), value)]
    entries, damaged_count = unpack_entries("d", rows, key_of("d"))
    assert ([entry.path for entry in entries], damaged_count) == (["d/a"], 2)


@given(st.lists(st.tuples(numbers, numbers, versions, st.booleans()), max_size=8))
def test_objects_are_counted_as_they_are_unpacked(found: list[tuple[int, int, str, bool]]) -> None:
    rows = []
    for number, (size, checked_ns, version, is_dir) in enumerate(found):
        key = key_of(f"{number}", DIRECTORY if is_dir else OBJECT)
        entry = Entry(f"d/{number}", size, 1, version, is_dir, checked_ns)
        rows.append((key, pack_entry(key, entry, 1 << 63)))
    damaged = [(key_of("e"), b""), (key_of("f"), rows[0][1] if rows else b"x")]
    sizes = [size for size, _, _, is_dir in found if not is_dir]
    beyond = (PLACE + b"\xff", b"")
    assert count_objects([*rows, *damaged, beyond, *rows], beyond[0]) == (len(sizes), sum(sizes), 2)


def test_only_entries_are_taken() -> None:
    with pytest.raises(TypeError, match="no Entry"):
        placed([("d/a", 1, 1, "v", False, 1, 0)], directory)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="no Entry"):
        pack_entry(key_of("a"), "entry", 1)  # type: ignore[arg-type]


def test_pages_of_entries_are_nothing_to_the_garbage_collector() -> None:
    entries = entries_of([("a", 1, 2, "v", False), ("b", 0, 0, "", True)], 9)
    assert entries == [Entry("a", 1, 2, "v", False, 9), Entry("b", 0, 0, "", True, 9)]
    assert not any(map(gc.is_tracked, entries))
    assert len({hash(entry) for entry in entries}) == 2
