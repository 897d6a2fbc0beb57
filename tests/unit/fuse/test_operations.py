"""What a mount does, without a mount: what is answered at once, what is asked, and what is refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from forebay.cache import ROOT_INODE, Cache
from forebay.config import KIB
from forebay.errors import Closed, ConfigError, NotAttached, NotFound, Stale
from forebay.fuse.errnos import errno_of
from forebay.fuse.operations import Operations
from forebay.fuse.options import MountOptions
from forebay.testing.clock import ManualClock
from forebay.testing.faulty import FaultyStorage
from tests.unit.fuse.conftest import TREE, Mounting

MANY = 2_500


def walk(operations: Operations, *names: bytes) -> int:
    """Return the inode that a path leads to."""
    inode = ROOT_INODE
    for name in names:
        found = operations.known_lookup(inode, name) or operations.lookup(inode, name)
        inode = found.inode
    return inode


def listed(operations: Operations, inode: int) -> dict[bytes, int]:
    """Return names and inodes in a directory."""
    handle = operations.known_opendir(inode) or operations.opendir(inode)
    found: dict[bytes, int] = {}
    while rows := list(operations.readdir(handle, len(found)).rows(len(found))):
        found |= {name: inode for name, inode, *_ in rows}
    operations.releasedir(handle)
    return found


def read(operations: Operations, inode: int, offset: int = 0, length: int = 1 << 30) -> bytes:
    opened = operations.known_open(inode, os.O_RDONLY) or operations.open(inode, os.O_RDONLY)
    try:
        known = operations.known_read(opened.handle, offset, length)
        return bytes(operations.read(opened.handle, offset, length) if known is None else known)
    finally:
        operations.release(opened.handle)


def test_what_is_known_is_answered_at_once(operate: Mounting, storage: FaultyStorage) -> None:
    operations = operate(max_age=None)
    assert operations.known_lookup(ROOT_INODE, b"a") is None
    inode = operations.lookup(ROOT_INODE, b"a").inode
    assert read(operations, inode) == b"1"
    calls = storage.calls.copy()
    assert operations.known_lookup(ROOT_INODE, b"a") == operations.known_getattr(inode)
    opened = operations.known_open(inode, os.O_RDONLY)
    assert opened is not None
    assert bytes(operations.known_read(opened.handle, 0, 10) or b"") == b"1"
    assert storage.calls == calls


def test_a_listing_makes_all_in_it_known(operate: Mounting, storage: FaultyStorage) -> None:
    operations = operate(max_age=None)
    assert operations.known_opendir(ROOT_INODE) is None
    names = listed(operations, ROOT_INODE)
    assert set(names) == {b"a", b"sub", b"both"}
    storage.calls.clear()
    for name, inode in names.items():
        found = operations.known_lookup(ROOT_INODE, name)
        assert found is not None
        assert found.inode == inode
    assert operations.known_opendir(ROOT_INODE) is not None
    assert not storage.calls


def test_a_large_directory_is_opened_at_once_and_read_by_pages(
    operate: Mounting, storage: FaultyStorage
) -> None:
    for number in range(MANY):
        storage.put(f"many/{number:04}", b"x")
    operations = operate(max_age=None)
    many = operations.lookup(ROOT_INODE, b"many").inode
    assert len(listed(operations, many)) == MANY
    storage.calls.clear()
    handle = operations.known_opendir(many)
    assert handle is not None
    names = [row[0] for row in operations.readdir(handle, 0).rows(0)]
    assert 0 < len(names) < MANY
    # An offset that was given holds, whatever comes; so does one from before, as after rewinddir(3).
    for start in (len(names), 0, MANY - 1):
        assert next(operations.readdir(handle, start).rows(start))[0] == b"%04d" % start
    assert [row[0] for row in operations.readdir(handle, MANY).rows(0)] == sorted(
        b"%04d" % n for n in range(MANY)
    )
    assert list(operations.readdir(handle, MANY).rows(MANY)) == []
    assert not storage.calls


def test_what_was_listed_before_a_change_is_told_for_no_time(
    operate: Mounting, cache: Cache, storage: FaultyStorage
) -> None:
    operations = operate(max_age=3_600)
    handle = operations.opendir(ROOT_INODE)
    assert operations.readdir(handle, 0).left_s(60.0) > 0
    storage.put("a", b"other")
    cache.sync("d")
    assert operations.readdir(handle, 0).left_s(60.0) == 0
    operations.releasedir(handle)
    handle = operations.opendir(ROOT_INODE)
    assert operations.readdir(handle, 0).left_s(60.0) > 0


@pytest.mark.parametrize("max_age", [None, 60, 0])
def test_a_name_that_is_both_is_the_directory_once_it_is_listed(operate: Mounting, max_age: float) -> None:
    operations = operate(max_age=max_age)
    names = listed(operations, ROOT_INODE)
    assert list(listed(operations, names[b"both"])) == [b"x"]
    assert walk(operations, b"both", b"x") == listed(operations, names[b"both"])[b"x"]


def test_it_is_the_directory_also_where_the_object_was_found_before(operate: Mounting) -> None:
    operations = operate(max_age=None)
    before = operations.lookup(ROOT_INODE, b"both").inode
    inode = listed(operations, ROOT_INODE)[b"both"]
    assert inode != before
    assert walk(operations, b"both") == inode


def test_ranges_over_blocks(operate: Mounting) -> None:
    operations, data = operate(max_age=None), TREE["sub/b"]
    inode = walk(operations, b"sub", b"b")
    for _ in range(2):  # fetched, and as it is cached
        for offset in (0, 64 * KIB - 1, 100_000, len(data) - 1, len(data), len(data) + 1):
            assert read(operations, inode, offset, 70_000) == data[offset : offset + 70_000]


def test_checked_at_every_use(operate: Mounting, storage: FaultyStorage) -> None:
    operations = operate(max_age=0)
    inode = walk(operations, b"a")
    assert read(operations, inode) == b"1"
    storage.put("a", b"another")
    assert operations.known_getattr(inode) is None
    assert operations.getattr(inode)._replace(mtime_ns=0)[3:] == (7, 0, 0.0)
    assert read(operations, inode) == b"another"


def test_the_kernel_is_told_how_long_it_holds(operate: Mounting, clock: ManualClock) -> None:
    operations = operate(max_age=60)
    assert operations.lookup(ROOT_INODE, b"a").timeout_s == 60
    clock.advance(45)
    found = operations.known_lookup(ROOT_INODE, b"a")
    assert found is not None
    assert found.timeout_s == 15
    clock.advance(16)
    assert operations.known_lookup(ROOT_INODE, b"a") is None


def test_an_open_file_keeps_to_its_version(operate: Mounting, cache: Cache, storage: FaultyStorage) -> None:
    operations = operate(max_age=0)
    inode = walk(operations, b"a")
    opened = operations.open(inode, os.O_RDONLY)
    assert bytes(operations.read(opened.handle, 0, 10)) == b"1"
    storage.put("a", b"2")
    # Nobody knows so far.
    assert bytes(operations.known_read(opened.handle, 0, 10) or b"") == b"1"
    assert cache.stat("d/a").version == "v7"
    with pytest.raises(Stale):
        operations.known_read(opened.handle, 0, 10)
    assert read(operations, inode) == b"2"


def test_pages_are_kept_of_the_same_version_alone(operate: Mounting, storage: FaultyStorage) -> None:
    operations = operate(max_age=0)
    inode = walk(operations, b"a")
    for keep_pages in (False, True):
        opened = operations.open(inode, os.O_RDONLY)
        assert opened.keep_pages == keep_pages
        operations.known_read(opened.handle, 0, 1)
        operations.release(opened.handle)
    storage.put("a", b"2")  # of the same size and time
    opened = operations.open(inode, os.O_RDONLY)
    assert (opened.keep_pages, opened.is_direct, opened.forget_inode) == (False, False, True)
    operations.known_read(opened.handle, 0, 1)
    assert operations.open(inode, os.O_RDONLY).keep_pages


def test_a_version_beside_another_that_is_open_has_no_pages(
    operate: Mounting, storage: FaultyStorage
) -> None:
    operations = operate(max_age=0)
    inode = walk(operations, b"a")
    old = operations.open(inode, os.O_RDONLY)
    storage.put("a", b"2")
    for _ in range(2):
        opened = operations.open(inode, os.O_RDONLY)
        assert (opened.keep_pages, opened.is_direct, opened.forget_inode) == (False, True, True)
        operations.release(opened.handle)
    operations.release(old.handle)
    for keep_pages in (False, True):
        opened = operations.open(inode, os.O_RDONLY)
        assert (opened.keep_pages, opened.is_direct) == (keep_pages, False)
        operations.known_read(opened.handle, 0, 1)


def test_pages_of_what_never_changes_are_kept(operate: Mounting) -> None:
    operations = operate(max_age=None)
    assert operations.open(walk(operations, b"a"), os.O_RDONLY).keep_pages
    assert operations.outdated() == []


def test_what_was_kept_for_ever_is_forgotten_when_it_changes(
    operate: Mounting, cache: Cache, storage: FaultyStorage
) -> None:
    operations = operate(max_age=None)
    inode = walk(operations, b"a")
    assert read(operations, inode) == b"1"
    assert operations.outdated() == []
    storage.put("a", b"another")
    cache.sync("d")
    # Twice, for answers that were under way at the first time.
    assert [operations.outdated() for _ in range(3)] == [[b"a"], [b"a"], []]
    opened = operations.open(inode, os.O_RDONLY)
    assert (opened.keep_pages, opened.forget_inode) == (False, True)
    assert read(operations, inode) == b"another"


def test_what_is_forgotten_is_stale(operate: Mounting, cache: Cache) -> None:
    operations = operate(max_age=None)
    inode = walk(operations, b"a")
    cache.free("d", metadata=True)
    with pytest.raises(Stale):
        operations.getattr(inode)
    # Another look finds it again, under a number of its own.
    assert walk(operations, b"a") != inode


def test_what_cannot_be_written_down_is_shown_all_the_same(
    operate: Mounting, cache: Cache, tmp_path: Path, storage: FaultyStorage
) -> None:
    operate(max_age=None)
    with Cache(tmp_path / "cache", schemes=storage.schemes(), read_only=True) as reader:
        operations = Operations(reader.nodes("d"), MountOptions(), read_only=True, status=reader.status)
        names = listed(operations, ROOT_INODE)
        assert set(names) == {b"a", b"sub", b"both"}
        assert read(operations, walk(operations, b"a")) == b"1"
        assert walk(operations, b"a") == names[b"a"]
        assert list(listed(operations, names[b"both"])) == [b"x"]


def test_what_is_gone_is_not_found(operate: Mounting, storage: FaultyStorage) -> None:
    operations = operate(max_age=0)
    inode = walk(operations, b"a")
    storage.remove("a")
    with pytest.raises(NotFound) as raised:
        operations.lookup(ROOT_INODE, b"a")
    assert errno_of(raised.value) == errno.ENOENT
    with pytest.raises(NotFound):
        operations.getattr(inode)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC])
def test_writing_is_refused(operate: Mounting, flags: int) -> None:
    operations = operate(max_age=None)
    with pytest.raises(OSError, match="read-only") as raised:
        operations.known_open(walk(operations, b"a"), flags)
    assert errno_of(raised.value) == errno.EROFS


def test_no_more_is_open_than_may_be(operate: Mounting) -> None:
    operations = operate(max_age=None)
    for _ in range(operations.directories.count_max):
        operations.opendir(ROOT_INODE)
    with pytest.raises(OSError, match="more than 1024 directories") as raised:
        operations.opendir(ROOT_INODE)
    assert errno_of(raised.value) == errno.ENFILE
    operations.close()
    assert operations.opendir(ROOT_INODE)


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (Closed("closed"), errno.ESHUTDOWN),
        (NotAttached("none"), errno.ESTALE),
        (ConfigError("wrong"), errno.EIO),
        (TimeoutError("late"), errno.ETIMEDOUT),
        (MemoryError(), errno.ENOMEM),
        (RuntimeError("of nobody"), errno.EIO),
    ],
)
def test_numbers_of_what_has_none(error: Exception, number: int) -> None:
    assert errno_of(error) == number


def test_a_handle_that_is_not_open(operate: Mounting) -> None:
    operations = operate(max_age=None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        operations.known_read(17, 0, 1)
    operations.release(17)
    operations.releasedir(17)


def test_names_that_no_file_system_has_are_left_out(operate: Mounting, storage: FaultyStorage) -> None:
    storage.replace(dict.fromkeys(("ok", "sub/..", "sub/.", "sub/fine", "sub/n\x00l"), (b"", "v")))
    operations = operate(max_age=None)
    assert list(listed(operations, walk(operations, b"sub"))) == [b"fine"]


def test_the_control_folder(operate: Mounting) -> None:
    operations = operate(MountOptions(show_control=True), max_age=None)
    assert b".forebay" in listed(operations, ROOT_INODE)
    folder = operations.known_lookup(ROOT_INODE, b".forebay")
    assert folder is not None
    assert list(listed(operations, folder.inode)) == [b"stats"]
    found = operations.known_lookup(folder.inode, b"stats")
    assert found is not None
    stats = json.loads(read(operations, found.inode))
    assert (stats["dataset"], stats["pid"]) == ("d", os.getpid())
    with pytest.raises(NotFound):
        operations.known_lookup(folder.inode, b"other")
    with pytest.raises(NotADirectoryError):
        operations.known_opendir(found.inode)


def test_a_version_is_shown_and_followed(operate: Mounting, cache: Cache, storage: FaultyStorage) -> None:
    operations = operate(max_age=None)
    cache.create_manifest("d", "one")
    storage.put("a", b"another")
    cache.sync("d")
    cache.create_manifest("d", "two")
    cache.use_manifest("d", "one")
    operations.outdated()
    old = walk(operations, b"a")
    assert operations.getattr(old).size == 1
    with pytest.raises(NotFound):
        operations.known_lookup(ROOT_INODE, b"not listed")
    cache.use_manifest("d", "two")
    assert b"a" in operations.outdated()
    with pytest.raises(Stale):
        operations.getattr(old)
    assert operations.getattr(walk(operations, b"a")).size == len(b"another")
