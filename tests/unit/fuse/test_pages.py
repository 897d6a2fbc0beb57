"""Which opens may use the kernel's pages, by what is open under other handles."""

from __future__ import annotations

import os

from forebay.cache import ROOT_INODE
from forebay.fuse.operations import Opened, Operations
from forebay.testing.faulty import FaultyStorage
from tests.unit.fuse.conftest import Mounting


def opened(operations: Operations) -> Opened:
    inode = operations.lookup(ROOT_INODE, b"a").inode
    return operations.open(inode, os.O_RDONLY)


def test_a_version_is_apart_as_long_as_another_is_open(operate: Mounting, storage: FaultyStorage) -> None:
    operations = operate(max_age=0)
    old = [opened(operations) for _ in range(2)]
    assert [(each.is_direct, each.keep_pages) for each in old] == [(False, False), (False, True)]
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
    assert opened(operations).keep_pages


def test_closing_twice_closes_nothing_else(operate: Mounting, storage: FaultyStorage) -> None:
    operations = operate(max_age=0)
    old, other = opened(operations), opened(operations)
    for _ in range(2):
        operations.release(old.handle)
    storage.put("a", b"2")
    assert opened(operations).is_direct
    operations.release(other.handle)
