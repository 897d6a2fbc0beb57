"""Manifests as files: built once, read as the entries are, and nothing left of those that were not kept."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.errors import ConfigError
from forebay.meta import Entry, ManifestFiles, ManifestRecord, manifest_of_inode
from forebay.meta.manifest import StoredManifest

PARTS = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]) | st.just("\udcff"),
    min_size=1,
    max_size=4,
)
# Of more parts than any other.
ABSENT = "a/b/c/d/e"
NUMBERS = itertools.count(100)
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[ManifestFiles]:
    files = ManifestFiles(tmp_path / "manifests")
    yield files
    files.close()


def record(number: int = 1, version: str = "v1", dataset_id: int = 7) -> ManifestRecord:
    return ManifestRecord(version, dataset_id, number, 0, 0, 0.0, "a test")


def entry(path: str, size: int = 7, version: str = "0" * 32, checked_ns: int = 3) -> Entry:
    return Entry(path, size, -5, version, False, checked_ns)


def made(
    files: ManifestFiles, entries: list[Entry], draft: ManifestRecord, order: list[str] | None = None
) -> ManifestRecord:
    with files.build(draft) as builder:
        builder.add(entries)
        if order is not None:
            builder.add_order(order)
        size = builder.finish()
        builder.keep()
    return replace(draft, objects=size.objects, bytes=size.bytes)


def opened(files: ManifestFiles, entries: list[Entry], draft: ManifestRecord | None = None) -> StoredManifest:
    return files.open(made(files, entries, draft or record()))


def paths_below(manifest: StoredManifest, path: str = "") -> list[str]:
    return [entry.path for page in manifest.pages(path) for entry in page]


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.dictionaries(PATHS, st.integers(0, 1 << 40), max_size=30))
def test_shows_exactly_what_was_put_in(files: ManifestFiles, sizes: dict[str, int]) -> None:
    number = next(NUMBERS)
    draft = record(number)
    done = made(files, [entry(path, size) for path, size in sizes.items()], draft)
    assert (done.objects, done.bytes) == (len(sizes), sum(sizes.values()))
    manifest = files.open(done)
    above = {path.rsplit("/", count)[0] for path in sizes for count in range(1, path.count("/") + 1)}
    for path in {*sizes, *above, ABSENT}:
        found = manifest.find(path)
        if path in sizes:
            assert found == entry(path, sizes[path])
        else:
            assert (found is not None) == (path in above)
            assert found is None or found.is_dir
    for directory in {"", *above}:
        inside = {path for path in sizes if path.rpartition("/")[0] == directory}
        folders = {path for path in above if path.rpartition("/")[0] == directory}
        children = manifest.children(directory)
        assert children is not None
        assert {each.path for each in children if not each.is_dir} == inside
        assert {each.path for each in children if each.is_dir} == folders
        assert manifest.names(directory) == sorted({path.rpartition("/")[2] for path in inside | folders})
    for path in {"", *above, *sizes}:
        below = [each for each in sizes if each == path or each.startswith(f"{path}/") or not path]
        assert sorted(paths_below(manifest, path)) == sorted(below)
    assert manifest.children(ABSENT) is manifest.names(ABSENT) is None
    inodes = [each.inode for page in manifest.pages("") for each in page]
    assert len(set(inodes)) == len(inodes)
    assert {manifest_of_inode(inode) for inode in inodes} <= {number}
    files.sweep(set)


def test_directories_of_many_pages(files: ManifestFiles) -> None:
    entries = [entry(f"flat/{number:05}") for number in range(2_500)]
    entries += [entry(f"deep/{number:05}/x") for number in range(2_500)]
    manifest = opened(files, entries)
    assert paths_below(manifest) == sorted(each.path for each in entries)
    assert paths_below(manifest, "flat") == [each.path for each in entries[:2_500]]
    assert max(len(page) for page in manifest.pages("")) <= 1_000


def test_batches_are_one_manifest(files: ManifestFiles) -> None:
    draft = record()
    with files.build(draft) as builder:
        for first in range(0, 25_000, 500):
            builder.add(entry(f"{number % 7}/{number}") for number in range(first, first + 500))
        assert builder.finish() == (25_000, 7 * 25_000)
        builder.keep()
    assert len(paths_below(files.open(draft))) == 25_000


def test_of_a_path_that_comes_twice_the_latest_counts(files: ManifestFiles) -> None:
    entries = [entry("a", 1, "old", 1), entry("b", 2), entry("a", 3, "new", 2)]
    done = made(files, entries, record())
    assert (done.objects, done.bytes) == (2, 5)
    assert files.open(done).find("a") == entries[-1]


def test_which_entry_was_lost_to_another_of_its_path(files: ManifestFiles) -> None:
    with files.build(record()) as builder:
        builder.add(entry(path, checked_ns=10 + number) for number, path in enumerate("abcbd"))
        assert builder.size().objects == 4
        assert builder.first_lost(10, 5) == 11
        builder.add([entry("b", checked_ns=11)])
        assert builder.first_lost(10, 5) == 11


@pytest.mark.parametrize("path", ["\ud800", "a/\ud800"])
def test_what_cannot_be_listed_is_named(files: ManifestFiles, path: str) -> None:
    with files.build(record()) as builder:
        builder.add([entry("fine"), entry(path)])
        with pytest.raises(ValueError, match=r"ud800.*cannot be listed"):
            builder.finish()


def test_nothing_is_left_of_one_that_is_not_kept(files: ManifestFiles, tmp_path: Path) -> None:
    with files.build(record()) as builder:
        builder.add([entry("a")])
        builder.add_order(["a"])
        assert len(list((tmp_path / "manifests/7").iterdir())) == 2
    assert list((tmp_path / "manifests/7").iterdir()) == []


def test_an_order_names_each_object_once(files: ManifestFiles) -> None:
    entries = [entry(path) for path in ("a", "b/c", "b/d", "\udcff")]
    paths = ["b/d", "\udcff", "a", "b/c"]
    done = made(files, entries, record(), paths)
    assert list(files.order(done)) == paths
    for bad, words in (
        (["a", "a"], "twice"),
        (["a", "x"], "not listed"),
        (["a", "b"], "'b', which is not listed"),
    ):
        with files.build(record(2)) as builder:
            builder.add(entries)
            with pytest.raises(ValueError, match=words):
                builder.add_order(bad)
    with files.build(record(2)) as builder:
        builder.add(entries)
        builder.add_order(["a", "b/c", "b/d"])
        assert builder.is_ordered
        with pytest.raises(ValueError, match="3 of the 4 objects"):
            builder.finish()


@pytest.mark.parametrize(
    "damage", [b'"a"\n"b"\n', b'"a"\n"b"\n"c"', b'"a"\n{}\n"c"\n', b'"a"\nb\n"c"\n', b"\xff\n"]
)
def test_a_damaged_order_is_an_error(files: ManifestFiles, tmp_path: Path, damage: bytes) -> None:
    done = made(files, [entry(path) for path in "abc"], record(), list("abc"))
    (tmp_path / "manifests/7/1-v1.order").write_bytes(damage)
    with pytest.raises(ConfigError, match=r"1-v1.order: .*make the manifest anew"):
        list(files.order(done))


def test_a_damaged_row_is_an_error_and_not_an_absent_object(files: ManifestFiles, tmp_path: Path) -> None:
    done = made(files, [entry(f"d/{number}", version="w" * 50) for number in range(3)], record())
    path = tmp_path / "manifests/7/1-v1.lmdb"
    path.write_bytes(path.read_bytes().replace(b"w" * 50, b"w" * 20 + b"x" + b"w" * 29))
    manifest = files.open(done)
    for look in (lambda: manifest.find("d/1"), lambda: manifest.children("d"), lambda: paths_below(manifest)):
        with pytest.raises(OSError, match="is damaged") as caught:
            look()
        assert caught.value.filename == str(path)


def test_a_truncated_file_is_refused_before_it_is_mapped(files: ManifestFiles, tmp_path: Path) -> None:
    done = made(files, [entry(f"d/{number}") for number in range(1_000)], record())
    os.truncate(tmp_path / "manifests/7/1-v1.lmdb", 20_000)
    with pytest.raises(ConfigError, match=r"1-v1.lmdb: truncated; use another version than 'v1'"):
        files.open(done)
    (tmp_path / "manifests/7/1-v1.lmdb").write_bytes(b"garbage" * 5_000)
    with pytest.raises(ConfigError, match=r"1-v1.lmdb: cannot be opened"):
        files.open(done)
    (tmp_path / "manifests/7/1-v1.lmdb").unlink()
    with pytest.raises(FileNotFoundError):
        files.open(done)


def test_who_has_it_open_reads_on_after_it_was_removed(files: ManifestFiles, tmp_path: Path) -> None:
    entries = [entry(f"d/{number}") for number in range(2_000)]
    done = made(files, entries, record())
    manifest = files.open(done)
    pages = manifest.pages("")
    first = next(pages)
    files.remove(done)
    assert not (tmp_path / "manifests/7").exists()
    assert [*first, *(each for page in pages for each in page)] == sorted(entries)


def test_is_closed_after_its_last_user(files: ManifestFiles, tmp_path: Path) -> None:
    def descriptors() -> list[str]:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return [link for link in links if os.path.exists(link) and ".lmdb" in os.readlink(link)]

    first, second = made(files, [entry("a")], record()), made(files, [entry("b")], record(2, "v2"))
    manifest = files.open(first)
    assert files.open(first) is manifest
    assert len(descriptors()) > 0
    del manifest
    other = files.open(second)
    assert not any("1-v1" in os.readlink(link) for link in descriptors())
    assert other.find("b") == entry("b")
    again = files.open(first)
    assert again.find("a") == entry("a")


def test_sweeping_removes_what_is_nobodys(files: ManifestFiles, tmp_path: Path) -> None:
    kept = made(files, [entry("a")], record())
    made(files, [entry("a")], record(2, "v1"), ["a"])
    with files.build(record(3)) as builder:
        builder.add([entry("a")])
        assert files.has_unowned(lambda: {kept.file_name})
        files.sweep(lambda: {kept.file_name})
        assert not files.has_unowned(lambda: {kept.file_name})
        left = sorted(path.name for path in (tmp_path / "manifests/7").iterdir())
        assert left == ["1-v1.lmdb", "3-v1.lmdb"]
        # It was not disturbed.
        assert builder.finish().objects == 1
    files.sweep(set)
    assert list((tmp_path / "manifests").iterdir()) == []


def test_what_was_kept_while_somebody_swept_stays(files: ManifestFiles, tmp_path: Path) -> None:
    """The catalog is looked at before and after the lock was had: its row may have come in between."""
    done = made(files, [entry("a")], record())
    answers = iter([set(), {done.file_name}])
    files.sweep(lambda: next(answers))
    assert files.open(done).find("a") == entry("a")


def test_a_child_of_a_fork_keeps_no_file_from_being_swept(files: ManifestFiles, tmp_path: Path) -> None:
    builder = files.build(record())
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        theirs.send(b"forked")
        theirs.recv(1)
        os._exit(0)
    theirs.close()
    with ours:
        assert ours.recv(6) == b"forked"
        # As a killed process would, but for its child: the lock goes, the file stays.
        builder.keep()
        builder.close()
        files.sweep(set)
        assert list((tmp_path / "manifests").iterdir()) == []
    os.waitpid(child, 0)


def test_a_number_that_is_given_again_begins_anew(files: ManifestFiles) -> None:
    """As after a restored catalog: the file of that number is named by no row."""
    made(files, [entry("old")], record(), ["old"])
    done = made(files, [entry("new")], record())
    assert paths_below(files.open(done)) == ["new"]


def test_a_group_shares_them(tmp_path: Path) -> None:
    files = ManifestFiles(tmp_path / "manifests", shared_group=os.getgid())
    made(files, [entry("a")], record(), ["a"])
    folder = tmp_path / "manifests/7"
    modes = {path.name: oct(path.stat().st_mode & 0o7777) for path in folder.iterdir()}
    assert modes == {"1-v1.lmdb": "0o660", "1-v1.order": "0o660"}
    assert oct(folder.stat().st_mode & 0o7777) == "0o2770"
    files.close()
