"""Which opens may use the kernel's pages, by what is open under other handles."""

from __future__ import annotations

import os

from forebay.cache import ROOT_INODE, Cache
from forebay.fuse.operations import Opened, Operations
from forebay.fuse.options import MountOptions
from forebay.fuse.writing import Writing
from forebay.testing.faulty import FaultyStorage
from tests.unit.fuse.conftest import Mounting


def opened(operations: Operations) -> Opened:
    inode = operations.lookup(ROOT_INODE, b"a").inode
    return operations.open(inode, os.O_RDONLY)


def read(operations: Operations, file: Opened) -> bytes:
    known = operations.known_read(file.handle, 0, 100)
    return bytes(operations.read(file.handle, 0, 100) if known is None else known)


def test_pages_are_kept_once_who_was_told_to_drop_others_has_read(
    operate: Mounting, storage: FaultyStorage
) -> None:
    operations = operate(max_age=0)
    first = opened(operations)
    assert read(operations, first) == b"1"
    operations.release(first.handle)
    assert opened(operations).keep_pages
    for handle in (1, 2):
        operations.release(handle)
    storage.put("a", b"2")
    # The kernel has the pages of the old version until the first of these opens returns to its program.
    files = [opened(operations) for _ in range(2)]
    assert not any(file.keep_pages or file.is_direct for file in files)
    assert read(operations, files[1]) == b"2"
    assert opened(operations).keep_pages


def test_who_closed_without_a_read_has_dropped_nothing(operate: Mounting) -> None:
    operations = operate(max_age=0)
    file = opened(operations)
    operations.release(file.handle)
    assert not opened(operations).keep_pages


def test_a_read_of_a_version_that_is_no_longer_opened_is_no_word_on_the_next(
    operate: Mounting, storage: FaultyStorage
) -> None:
    operations = operate(max_age=0)
    old = opened(operations)
    storage.put("a", b"2")
    new = opened(operations)
    assert new.is_direct
    operations.known_read(new.handle, 0, 1)
    for file in (old, new):
        operations.release(file.handle)
    assert not opened(operations).keep_pages


def test_who_opens_what_another_is_about_to_write_drops_pages_as_long_as_he_may_have_not(
    cache: Cache, storage: FaultyStorage
) -> None:
    cache.attach("d", "faulty://x", max_age=0, writable=True)
    operations = Writing(cache.nodes("d"), MountOptions(), status=cache.status)
    inode = operations.lookup(ROOT_INODE, b"a").inode
    writer = operations.open(inode, os.O_WRONLY | os.O_TRUNC)
    assert not writer.keep_pages
    assert not operations.open(inode, os.O_RDONLY).keep_pages
    assert operations.known_write(writer.handle, 0, b"new") == 3
    assert operations.open(inode, os.O_RDONLY).keep_pages
    operations.close()


def test_a_version_is_apart_as_long_as_another_is_open(operate: Mounting, storage: FaultyStorage) -> None:
    operations = operate(max_age=0)
    old = [opened(operations) for _ in range(2)]
    assert [(each.is_direct, each.keep_pages) for each in old] == [(False, False)] * 2
    storage.put("a", b"2")
    new = [opened(operations) for _ in range(2)]
    assert all(each.is_direct and not each.keep_pages for each in new)
    operations.release(old[0].handle)
    for each in new:
        operations.release(each.handle)
    assert opened(operations).is_direct
    operations.release(old[1].handle)
    last = opened(operations)
    assert not last.is_direct
    assert not last.keep_pages
    assert read(operations, last) == b"2"
    assert opened(operations).keep_pages


def test_closing_twice_closes_nothing_else(operate: Mounting, storage: FaultyStorage) -> None:
    operations = operate(max_age=0)
    old, other = opened(operations), opened(operations)
    for _ in range(2):
        operations.release(old.handle)
    storage.put("a", b"2")
    assert opened(operations).is_direct
    operations.release(other.handle)
