"""Damaged metadata: entries are a miss and are asked again; the catalog is an error that names the cure."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from forebay.config import MIB
from forebay.errors import ConfigError
from forebay.meta import Dataset, Entries, Entry, Metadata, Recent
from forebay.meta.changes import Changes
from forebay.meta.environment import Environment
from forebay.meta.stale import StaleObject


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    with Metadata(tmp_path / "meta") as opened:
        yield opened


def entry(path: str, checked_ns: int = 1, version: str = "v") -> Entry:
    return Entry(path, 7, 5, version, False, checked_ns)


def entries_file(folder: Path) -> Path:
    (path,) = folder.glob("entries-*.lmdb")
    return path


def damage(entries: Entries, table: bytes, change: Callable[[bytes], bytes]) -> int:
    """Change the value of every row of a table; return how many there were."""
    with entries._environment.writing() as transaction:
        rows = [(key, value) for key, value in transaction.cursor() if key.startswith(table)]
        for key, value in rows:
            transaction.put(key, change(value))
    return len(rows)


def flip(value: bytes) -> bytes:
    """Flip one bit somewhere."""
    position = random.Random(value).randrange(len(value))
    return value[:position] + bytes([value[position] ^ 0x10]) + value[position + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda value: b"",
    "short": lambda value: value[:5],
    "cut": lambda value: value[:-1],
    "long": lambda value: value + b"\0",
    "flipped": flip,
    "zeros": lambda value: bytes(len(value)),
    "noise": lambda value: random.Random(1).randbytes(len(value)),
}


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("table", [b"e", b"d", b"p", b"z", b"l", b"s", b"a", b"c"])
def test_damaged_rows_are_a_miss(metadata: Metadata, table: bytes, change: Callable[[bytes], bytes]) -> None:
    entries = metadata.entries
    paths = [f"d/{number}" for number in range(20)] + ["d/" + "x" * 500]
    entries.put(1, [entry(path, 1, "old") for path in paths])
    entries.put(1, [entry(path, 2) for path in paths])
    entries.note_absent(1, "d/none", 2)
    entries.finish_listing(1, "d", 2)
    inodes = [child.inode for child in entries.children(1, "d")]
    assert damage(entries, table, change) > 0
    for path in paths:
        assert entries.get(1, path) in (None, entry(path, 2))
    for inode in inodes:
        found = entries.by_inode(inode)
        assert found is None or found[0] == 1
    assert entries.absent_ns(1, "d/none") in (None, 2)
    assert all(stale.version == "old" for stale in entries.stale(100))
    listing = entries.listing(1, "d")
    if len(listing.entries) != len(paths):
        assert listing.listed_ns is None
    if table in (b"e", b"d", b"s"):
        assert entries.damaged_rows > 0
    # What is asked again is remembered again, under inodes that nobody had.
    assert entries.put(1, [entry(path, 3, "new") for path in paths])
    entries.finish_listing(1, "d", 3)
    assert entries.listing(1, "d") == (
        3,
        sorted((entry(path, 3, "new") for path in paths), key=lambda e: e.path),
    )
    known = [child.inode for child in entries.children(1, "d")]
    assert len(set(known)) == len(paths)
    entries.drop_dataset(1)
    assert entries.children(1, "d") == []


def test_a_row_under_another_key_is_a_miss(metadata: Metadata) -> None:
    metadata.entries.put(1, [entry("d/a", 1, "a"), entry("d/b", 1, "b")])
    with metadata.entries._environment.writing() as transaction:
        rows = {key: value for key, value in transaction.cursor() if key.startswith(b"e")}
        (one, other) = rows
        transaction.put(one, rows[other])
    assert metadata.entries.get(1, "d/a") is None
    assert metadata.entries.get(1, "d/b") == entry("d/b", 1, "b")
    assert metadata.entries.damaged_rows == 1


def test_a_full_map_is_not_remembered(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Environment(str(tmp_path / "entries.lmdb"), map_bytes=1 << 18, durable=False) as environment:
        entries = Entries(environment, Changes(tmp_path / "changes"))
        assert entries.put(1, [entry("a", 1)])
        assert not entries.put(1, [entry(f"d/{number}") for number in range(25_000)])
        assert entries.listed_ns(1, "d") is None
        assert entries.get(1, "a") == entry("a", 1)
        entries.drop_dataset(1)
        assert entries.put(1, [entry("b")])
    assert len([record for record in caplog.records if "not kept" in record.getMessage()]) == 1


TRUNCATED = (0, 100, 4_096, 8_192, 12_288, 40_960, 100_000)


@pytest.mark.parametrize("length", TRUNCATED)
def test_truncated_entries_are_begun_anew(tmp_path: Path, length: int) -> None:
    paths = [f"d/{number}" for number in range(2_000)]
    with Metadata(tmp_path) as metadata:
        metadata.entries.put(1, [entry(path) for path in paths])
        metadata.catalog.attach(Dataset("a", "file:///a"))
    os.truncate(entries_file(tmp_path), length)
    with Metadata(tmp_path) as metadata:
        assert all(metadata.entries.get(1, path) in (None, entry(path)) for path in paths)
        assert list(metadata.catalog.datasets()) == ["a"]
        metadata.entries.put(1, [entry(path, 2) for path in paths])
    # Where it was damaged behind its head, that was seen by now, and the file removed.
    with Metadata(tmp_path) as metadata:
        assert metadata.entries.put(1, [entry(path, 3) for path in paths])
        assert all(metadata.entries.get(1, path) == entry(path, 3) for path in paths)


def test_truncated_files_are_refused_to_who_may_only_read(tmp_path: Path) -> None:
    with Metadata(tmp_path) as metadata:
        metadata.entries.put(1, [entry(f"d/{number}") for number in range(2_000)])
    with Metadata(tmp_path, read_only=True) as metadata:
        assert metadata.entries.get(1, "d/7") == entry("d/7")
    os.truncate(entries_file(tmp_path), 12_288)
    with pytest.raises(ConfigError, match="truncated"):
        Metadata(tmp_path, read_only=True)
    entries_file(tmp_path).unlink()
    with pytest.raises(ConfigError, match="No such file"):
        Metadata(tmp_path, read_only=True)


def test_garbage_in_place_of_entries_is_begun_anew(tmp_path: Path) -> None:
    with Metadata(tmp_path) as metadata:
        metadata.entries.put(1, [entry("a")])
        path = entries_file(tmp_path)
    path.write_bytes(random.Random(2).randbytes(50_000))
    with Metadata(tmp_path) as metadata:
        assert metadata.entries.get(1, "a") is None
        assert metadata.entries.put(1, [entry("a")])


def test_a_damaged_directory_row_ends_what_was_looked_up_in_it(metadata: Metadata) -> None:
    entries, recent = metadata.entries, Recent(MIB)
    entries.put(1, [entry("d/a")])
    seen = entries.seen(1, "d/a")
    assert seen.entry is not None
    recent.put("s/d/a", seen.entry, entries.counter(1), seen.changes)
    assert recent.get("s/d/a") is not None
    damage(entries, b"d", flip)
    entries.put(1, [entry("d/b")])
    assert recent.get("s/d/a") is None
    assert entries.get(1, "d/b") == entry("d/b")


def test_look_ups_from_before_hold_no_longer_when_entries_are_begun_anew(tmp_path: Path) -> None:
    with Metadata(tmp_path) as metadata:
        metadata.entries.put(1, [entry("a", 1, "v1")])
        seen, counter, recent = metadata.entries.seen(1, "a"), metadata.entries.counter(1), Recent(MIB)
        assert seen.entry is not None
        recent.put("s/a", seen.entry, counter, seen.changes)
        assert recent.get("s/a") is not None
    entries_file(tmp_path).unlink()
    with Metadata(tmp_path) as metadata:
        for checked_ns in range(1, 9):
            metadata.entries.put(1, [entry("a", checked_ns, f"{checked_ns}")])
            assert recent.get("s/a") is None
        assert metadata.entries.changes(1) == counter.load()


@pytest.mark.parametrize("error", [lmdb.CorruptedError("page"), lmdb.PageNotFoundError("page")])
def test_a_file_that_lmdb_cannot_read_is_out_of_the_way_of_the_next(tmp_path: Path, error: Exception) -> None:
    with Metadata(tmp_path) as metadata:
        metadata.entries.put(1, [entry("a")])
        path = entries_file(tmp_path)

        def fail() -> None:
            raise error

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(metadata.entries._environment, "reading", fail)
            assert metadata.entries.get(1, "a") is None
            assert metadata.entries.children(1, "") == []
        assert not path.exists()
        # A second one, damaged or not, is not removed by who has the first one open.
        with Metadata(tmp_path / "other"):
            entries_file(tmp_path / "other").rename(path)
        assert metadata.entries.get(1, "a") == entry("a")
        assert path.exists()


def read_all(folder: Path) -> None:
    """Read every row of a catalog; one of them lies where it is damaged."""
    with Metadata(folder) as metadata:
        metadata.catalog.datasets()
        metadata.catalog.rows("job")


def test_a_truncated_catalog_is_an_error_that_names_the_backup(tmp_path: Path) -> None:
    with Metadata(tmp_path) as metadata:
        for number in range(200):
            metadata.catalog.put_row("job", f"{number}", {"text": "x" * 200})
        metadata.catalog.attach(Dataset("a", "file:///a"))
    whole = (tmp_path / "catalog.lmdb").read_bytes()
    for length in (0, 100, 8_192, len(whole) // 2):
        (tmp_path / "catalog.lmdb").write_bytes(whole[:length])
        with pytest.raises(ConfigError, match=r"catalog\.lmdb.*catalog\.lmdb\.backup"):
            read_all(tmp_path)
    (tmp_path / "catalog.lmdb").write_bytes((tmp_path / "catalog.lmdb.backup").read_bytes())
    with Metadata(tmp_path) as metadata:
        assert list(metadata.catalog.datasets()) == ["a"]
        assert len(metadata.catalog.rows("job")) == 200


@pytest.mark.parametrize("value", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"name": 1}'])
def test_a_damaged_row_of_the_catalog_is_an_error(metadata: Metadata, value: bytes) -> None:
    metadata.catalog.attach(Dataset("a", "file:///a"))
    with metadata.catalog._environment.writing() as transaction:
        transaction.put(b"dataset/a", value)
    for call in (
        metadata.catalog.datasets,
        lambda: metadata.catalog.detach("a"),
        lambda: metadata.catalog.attach(Dataset("a", "file:///b")),
    ):
        with pytest.raises(ConfigError, match=r"catalog\.lmdb: damaged.*dataset/a.*catalog\.lmdb\.backup"):
            call()


def test_stale_rows_of_a_dropped_dataset_go_with_it(metadata: Metadata) -> None:
    for dataset_id in (1, 2):
        metadata.entries.put(dataset_id, [entry("a", 1, "v1")])
        metadata.entries.put(dataset_id, [entry("a", 2, "v2")])
    metadata.entries.drop_dataset(1)
    assert metadata.entries.stale(10) == [StaleObject(2, "a", "v1", 7)]
