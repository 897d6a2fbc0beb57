"""What follows when an entry is replaced or removed: stale versions, inodes, absent paths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.meta import Entries, Entry, Metadata, StaleObject

ETAG = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    with Metadata(tmp_path / "meta") as opened:
        yield opened


@pytest.fixture
def entries(metadata: Metadata) -> Entries:
    return metadata.entries


def entry(path: str, checked_ns: int = 1, version: str = "v", *, size: int = 7) -> Entry:
    return Entry(path, size, -5, version, False, checked_ns)


def directory(path: str, checked_ns: int = 1) -> Entry:
    return Entry(path, 0, 0, "", True, checked_ns)


@pytest.mark.parametrize(
    "version",
    ["", "v", ETAG, f"{ETAG}-12", f"{ETAG}-123456", ETAG.upper(), f"{ETAG}\n", "ü\udcff", "1-2-3" * 100],
)
def test_versions_come_back_as_they_were(entries: Entries, version: str) -> None:
    entries.put(1, [entry("a", version=version)])
    assert entries.get(1, "a") == entry("a", version=version)
    assert entries.children(1, "") == [entry("a", version=version)]


def test_a_new_version_makes_the_old_one_stale(entries: Entries) -> None:
    old = StaleObject(1, "d/a", "v1", 5)
    assert entries.put(1, [entry("d/a", 1, "v1", size=5), entry("d/b", 1)]).replaced == []
    assert entries.put(1, [entry("d/a", 2, "v2", size=6), entry("d/b", 2)]).replaced == [old]
    assert entries.stale(10) == [old]
    entries.reclaimed([old, StaleObject(1, "d/never", "v", 1)])
    assert entries.stale(10) == []


def test_an_older_answer_makes_nothing_stale(entries: Entries) -> None:
    entries.put(1, [entry("a", 2, "v2")])
    assert entries.put(1, [entry("a", 1, "v1")]).replaced == []
    assert entries.stale(10) == []


def test_what_is_removed_is_stale(entries: Entries) -> None:
    for name in ("forgotten", "absent", "unlisted"):
        entries.put(1, [entry(f"d/{name}", 1, name)])
    assert entries.forget(1, "d/forgotten") == [StaleObject(1, "d/forgotten", "forgotten", 7)]
    assert entries.note_absent(1, "d/absent", 2) == [StaleObject(1, "d/absent", "absent", 7)]
    entries.finish_listing(1, "d", 2)
    assert {stale.path for stale in entries.stale(10)} == {"d/forgotten", "d/absent", "d/unlisted"}
    assert len(entries.stale(2)) == 2


def test_a_version_that_comes_back_is_not_reclaimed(entries: Entries) -> None:
    for checked_ns, version in enumerate(["v1", "v2", "v1"]):
        entries.put(1, [entry("a", checked_ns, version)])
    assert [stale.version for stale in entries.stale(10)] == ["v2"]
    entries.forget(1, "a")
    entries.put(1, [entry("a", 9, "v1")])
    assert [stale.version for stale in entries.stale(10)] == ["v2"]


def test_inodes_are_unique_and_stay_while_the_entry_lives(tmp_path: Path) -> None:
    with Metadata(tmp_path) as metadata:
        paths = [f"d/{number}" for number in range(100)]
        metadata.entries.put(1, [entry(path) for path in paths] + [directory("d/0"), directory("d")])
        first = {child.path: child.inode for child in metadata.entries.children(1, "d") if not child.is_dir}
        assert len(set(first.values())) == 100
        assert min(first.values()) >= 1 << 33
        metadata.entries.put(1, [entry(path, 2, "new") for path in paths])
    with Metadata(tmp_path) as metadata:
        known = {child.path: child.inode for child in metadata.entries.children(1, "d") if not child.is_dir}
        assert known == first
        metadata.entries.forget(1, "d/7")
        metadata.entries.put(1, [entry("d/7", 3)])
        found = metadata.entries.get(1, "d/7")
        assert found is not None
        assert found.inode > max(first.values())
        assert metadata.entries.by_inode(first["d/7"]) is None


def test_an_inode_leads_to_its_entry(entries: Entries) -> None:
    wanted = [entry("a"), entry("d/e/f", version=ETAG), entry("d/" + "x" * 900), directory("d")]
    for dataset_id in (1, 2):
        entries.put(dataset_id, wanted)
        for each in wanted:
            found = entries.get(dataset_id, each.path, directories=True)
            assert found is not None
            assert entries.by_inode(found.inode) == (dataset_id, each)
    assert entries.by_inode(1) is None
    found = entries.get(1, "a")
    assert found is not None
    entries.drop_dataset(1)
    assert entries.by_inode(found.inode) is None
    assert entries.get(2, "a") == entry("a")


def test_an_absent_path_is_remembered_until_it_is_seen(entries: Entries) -> None:
    assert entries.absent_ns(1, "a/b") is None
    assert entries.note_absent(1, "a/b", 5) == []
    assert entries.absent_ns(1, "a/b") == 5
    assert entries.absent_ns(2, "a/b") is None
    entries.note_absent(1, "a/b", 4)
    assert entries.absent_ns(1, "a/b") == 5
    # What was seen before is no news.
    entries.put(1, [entry("a/b", 4)])
    assert entries.get(1, "a/b") is None
    entries.put(1, [entry("a/b", 6)])
    assert entries.absent_ns(1, "a/b") is None
    assert entries.get(1, "a/b") == entry("a/b", 6)
    # It was there since: that it was absent is no longer known.
    entries.forget(1, "a/b")
    assert entries.absent_ns(1, "a/b") is None


def test_an_absent_path_drops_what_is_older(entries: Entries) -> None:
    entries.put(1, [directory("d"), entry("d/a"), entry("d/new", 9)])
    entries.finish_listing(1, "d", 1)
    entries.note_absent(1, "d", 5)
    assert entries.get(1, "d", directories=True) is None
    assert entries.get(1, "d/a") is None
    assert entries.listed_ns(1, "d") is None
    assert entries.children(1, "d") == [entry("d/new", 9)]
    entries.note_absent(1, "d/new", 5)
    assert entries.get(1, "d/new") == entry("d/new", 9)


def test_absent_paths_take_bounded_room(entries: Entries, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.meta.absent._PLACES", 1)
    for number in range(5):
        entries.note_absent(1, f"{number}", number + 1)
    assert [entries.absent_ns(1, f"{number}") for number in range(5)] == [None, None, None, None, 5]


def test_forgetting_a_directory_makes_it_unlisted(entries: Entries) -> None:
    entries.put(1, [directory("d"), entry("d/a")])
    entries.finish_listing(1, "d", 1)
    entries.forget(1, "d")
    assert entries.listed_ns(1, "d") is None


@pytest.mark.parametrize(
    "bad", [{"size": -1}, {"size": 1 << 64}, {"version": "\ud800"}, {"version": "v" * 70_000}]
)
def test_what_cannot_be_kept_is_told_and_nothing_else_is_lost(
    entries: Entries, bad: dict[str, object]
) -> None:
    assert not entries.put(1, [entry("d/a"), entry("d/bad")._replace(**bad), entry("d/c")])  # type: ignore[arg-type]
    assert entries.get(1, "d/bad") is None
    assert [child.path for child in entries.children(1, "d")] == ["d/a", "d/c"]


def test_a_name_that_no_storage_has_is_not_kept(entries: Entries) -> None:
    assert not entries.put(1, [entry("d/\ud800"), entry("d/a")])
    assert entries.names(1, "d").names == ["a"]
