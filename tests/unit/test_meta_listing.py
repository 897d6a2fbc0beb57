"""Directories: listings, names, walks, and the hashes that they are found by."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.meta import Entries, Entry, Metadata, rows
from forebay.meta.sweep import Sweep
from forebay.meta.write import Write


@pytest.fixture
def entries(tmp_path: Path) -> Iterator[Entries]:
    with Metadata(tmp_path / "meta") as opened:
        yield opened.entries


@pytest.fixture
def colliding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All directories of a dataset have the same hash."""
    monkeypatch.setattr(rows, "path_hash", lambda path: b"the same")
    rows.directory_key.cache_clear()
    yield
    rows.directory_key.cache_clear()


class KilledError(Exception):
    """As if the process had been killed."""


def entry(path: str, checked_ns: int = 5) -> Entry:
    return Entry(path, 7, 5, "v", False, checked_ns)


def directory(path: str, checked_ns: int = 5) -> Entry:
    return Entry(path, 0, 0, "", True, checked_ns)


def paths(entries: Entries, path: str) -> list[str]:
    return sorted(child.path for child in entries.children(1, path))


def test_a_listing_and_its_time_are_of_one_moment(entries: Entries) -> None:
    assert entries.listing(1, "d") == (None, [])
    entries.put(1, [entry("d/a")])
    assert entries.listing(1, "d") == (None, [entry("d/a")])
    entries.finish_listing(1, "d", 5)
    assert entries.listing(1, "d") == (5, [entry("d/a")])
    entries.finish_listing(1, "empty", 6)
    assert entries.listing(1, "empty") == (6, [])


def test_names_come_once_and_in_order(entries: Entries) -> None:
    names = ["b", "a", "é", "\udcff", "😀", "a b", "x" * 399, "x" * 400, "x" * 900, "B"]
    entries.put(1, [entry(f"d/{name}") for name in names] + [directory("d/a"), directory("d/z")])
    entries.put(1, [entry("e/only"), directory("f/only")])
    assert entries.names(1, "d") == (None, sorted([*names, "z"]))
    entries.finish_listing(1, "e", 5)
    assert entries.names(1, "e") == (5, ["only"])
    assert entries.names(1, "f").names == ["only"]
    assert entries.names(1, "none") == (None, [])


def test_what_came_late_is_older_than_the_listing(entries: Entries) -> None:
    """Somebody asked before the listing began, and remembers the answer after it ended."""
    entries.put(1, [entry("d/a", 5)])
    entries.finish_listing(1, "d", 5)
    entries.put(1, [entry("d/late", 4)])
    assert entries.get(1, "d/late") is None
    assert entries.names(1, "d") == (5, ["a"])
    entries.put(1, [entry("d/new", 6)])
    assert entries.names(1, "d") == (5, ["a", "new"])


def test_what_is_gone_is_gone_at_once_even_if_its_rows_are_not(
    entries: Entries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that sweeps is killed after its first transaction."""
    entries.put(1, [entry(f"d/{number:03}", 1) for number in range(50)] + [entry("d/kept", 1)])
    found = entries.get(1, "d/049")
    assert found is not None
    entries.put(1, [entry("d/kept", 5)])
    monkeypatch.setattr("forebay.meta.sweep._ROWS", 10)
    before = entries.changes(1)
    steps = 0

    def step_once(sweep: Sweep, write: Write) -> None:
        nonlocal steps
        steps += 1
        if steps > 1:
            raise KilledError
        step(sweep, write)

    step = Sweep.step
    with monkeypatch.context() as patch:
        patch.setattr(Sweep, "step", step_once)
        with pytest.raises(KilledError):
            entries.finish_listing(1, "d", 5)
    assert entries.changes(1) > before
    assert len(entries.stale(100)) == 10
    assert entries.listing(1, "d") == (5, [entry("d/kept", 5)])
    assert entries.names(1, "d") == (5, ["kept"])
    assert entries.get(1, "d/049") is None
    assert entries.by_inode(found.inode) is None
    # One that comes back is a new object.
    entries.put(1, [entry("d/049", 6)])
    again = entries.get(1, "d/049")
    assert again is not None
    assert again.inode != found.inode
    # The next listing sweeps the rest.
    entries.put(1, [entry("d/kept", 7)])
    entries.finish_listing(1, "d", 7)
    assert len(entries.stale(100)) == 50
    assert paths(entries, "d") == ["d/kept"]


def test_what_lay_below_a_directory_that_is_gone_goes_too(entries: Entries) -> None:
    entries.put(1, [directory("a", 1), directory("a/b", 1), directory("a/b/c", 1), entry("a/b/c/x", 1)])
    entries.put(1, [entry("a/b/y", 1), directory("kept", 1), entry("kept/z", 1), entry("a/b/since", 9)])
    for path in ("a", "a/b", "a/b/c", "kept"):
        entries.finish_listing(1, path, 1)
    entries.put(1, [directory("kept", 5)])
    entries.finish_listing(1, "", 5)
    for path in ("a", "a/b", "a/b/c"):
        assert entries.listed_ns(1, path) is None
        assert entries.get(1, path, directories=True) is None
    assert entries.get(1, "a/b/c/x") is None
    assert entries.get(1, "a/b/since") == entry("a/b/since", 9)
    assert entries.listing(1, "kept") == (1, [entry("kept/z", 1)])
    assert {stale.path for stale in entries.stale(10)} == {"a/b/c/x", "a/b/y"}


def test_directories_that_a_walk_has_shown_are_listed_together(entries: Entries) -> None:
    entries.put(1, [entry("a/old", 1), directory("a/gone", 1), entry("a/gone/y", 1), entry("ab/x", 1)])
    entries.put(2, [entry("a/old", 1)])
    shown = [entry(path) for path in ("top", "a/1", "a/b/2", "a/b/3", "c/d/e/4")]
    above = ["a", "a/b", "c", "c/d", "c/d/e"]
    assert entries.put(1, [*shown, *map(directory, above)])
    entries.finish_listings(1, ["", *above], 5)
    assert entries.names(1, "") == (5, ["a", "c", "top"])
    assert entries.listing(1, "a") == (5, [entry("a/1"), directory("a/b")])
    assert entries.names(1, "c/d") == (5, ["e"])
    assert entries.names(1, "c/d/e") == (5, ["4"])
    assert entries.get(1, "c/d", directories=True) == directory("c/d")
    assert entries.get(1, "a/gone/y") is None
    assert entries.listed_ns(1, "a/gone") is None
    assert {stale.path for stale in entries.stale(10)} == {"a/old", "a/gone/y"}
    # Neither walked nor below what was.
    assert entries.get(1, "ab/x") == entry("ab/x", 1)
    assert entries.get(2, "a/old") == entry("a/old", 1)


def test_very_many_directories_are_listed_together(entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.meta.entries._BATCH", 7)
    monkeypatch.setattr("forebay.meta.sweep._ROWS", 5)
    entries.put(1, [entry(f"d/{number}/old", 1) for number in range(50)])
    entries.put(1, [entry(f"d/{number}/{name}") for number in range(50) for name in "xy"])
    entries.finish_listings(1, (f"d/{number}" for number in range(50)), 5)
    for number in range(50):
        assert entries.names(1, f"d/{number}") == (5, ["x", "y"])
    assert len(entries.stale(100)) == 50


def test_all_known_directories_are_found(entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.meta.directories._ROWS", 7)
    entries.put(1, [entry(f"d/{number}/x") for number in range(50)] + [entry("dd/x"), entry("d/x")])
    entries.put(2, [entry("d/other/x")])
    assert sorted(entries.known_directories(1, "d")) == sorted(["d", *(f"d/{n}" for n in range(50))])
    assert set(entries.known_directories(1, "")) >= {"d", "dd", "d/7"}
    assert list(entries.known_directories(1, "none")) == []


@pytest.mark.usefixtures("colliding")
def test_a_directory_of_the_same_hash_is_not_remembered(entries: Entries) -> None:
    assert entries.put(1, [entry("d/a")])
    assert not entries.put(1, [entry("d/b"), entry("e/a"), entry("f/a")])
    entries.finish_listing(1, "e", 5)
    assert entries.get(1, "e/a") is None
    assert entries.listing(1, "e") == (None, [])
    assert paths(entries, "d") == ["d/a", "d/b"]
    assert entries.put(2, [entry("e/a")])
    assert entries.get(2, "e/a") == entry("e/a")
    entries.drop_dataset(1)
    assert entries.put(1, [entry("e/a")])
    assert paths(entries, "e") == ["e/a"]


def test_names_whose_shortened_forms_are_the_same(entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "name_hash", lambda name: b"sixteen the same")
    one, other = "x" * 500 + "1", "x" * 500 + "2"
    assert entries.put(1, [entry(f"d/{one}")])
    assert not entries.put(1, [entry(f"d/{other}")])
    assert entries.get(1, f"d/{other}") is None
    assert entries.get(1, f"d/{one}") == entry(f"d/{one}")
    assert entries.names(1, "d").names == [one]


def test_readers_beside_a_writer_see_whole_listings(entries: Entries) -> None:
    failures: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            listed_ns, children = entries.listing(1, "d")
            seen = {child.path for child in children}
            if listed_ns is not None and (
                not seen.issuperset(f"d/{listed_ns}-{n}" for n in range(20))
                or min(child.checked_ns for child in children) < listed_ns
            ):
                failures.append((listed_ns, children))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for generation in range(1, 40):
        page = [Entry(f"d/{generation}-{n}", 1, 0, f"{generation}", False, generation) for n in range(20)]
        assert entries.put(1, page)
        entries.finish_listing(1, "d", generation)
    stop.set()
    for reader in readers:
        reader.join()
    assert failures == []
