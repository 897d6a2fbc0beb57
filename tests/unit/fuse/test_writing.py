"""What a mount does that is written to, without a mount: what is left of what could not be opened."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from forebay.cache import ROOT_INODE, Cache
from forebay.errors import Stale
from forebay.fuse.options import MountOptions
from forebay.fuse.writing import Writing
from forebay.testing.faulty import FaultyStorage


@pytest.fixture
def operations(cache: Cache, storage: FaultyStorage) -> Iterator[Writing]:
    cache.attach("d", "faulty://x", max_age=0, writable=True)
    operations = Writing(cache.nodes("d"), MountOptions(), status=cache.status)
    yield operations
    operations.close()


def inode_of(operations: Writing, name: bytes) -> int:
    return operations.lookup(ROOT_INODE, name).inode


def bytes_of(storage: FaultyStorage, path: str) -> bytes | None:
    found = storage.content(path)
    return None if found is None else found[0]


def release(operations: Writing, handle: int) -> None:
    if operations.known_release(handle) is None:
        operations.release(handle)


@pytest.fixture
def full(operations: Writing) -> Writing:
    """The operations, with no room for a file that is opened."""
    operations.files.count_max = len(operations.files)  # type: ignore[misc]  # what takes 65,536 opens
    return operations


@pytest.mark.parametrize("access", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_an_open_that_found_no_room_does_not_empty_the_file(
    full: Writing, storage: FaultyStorage, access: int
) -> None:
    inode = inode_of(full, b"a")
    with pytest.raises(OSError, match="are open on this mount") as caught:
        full.open(inode, access | os.O_TRUNC)
    assert caught.value.errno == errno.ENFILE
    assert bytes_of(storage, "a") == b"1"
    found = full.getattr(inode)
    assert found.size == 1


def test_a_file_that_found_no_room_to_be_opened_is_not_made(full: Writing, storage: FaultyStorage) -> None:
    with pytest.raises(OSError, match="are open on this mount"):
        full.create(ROOT_INODE, b"new", os.O_WRONLY)
    with pytest.raises(OSError, match="are open on this mount"):
        full.create(ROOT_INODE, b"a", os.O_WRONLY | os.O_TRUNC)
    assert (bytes_of(storage, "new"), bytes_of(storage, "a")) == (None, b"1")
    with pytest.raises(FileNotFoundError):
        full.lookup(ROOT_INODE, b"new")


def test_an_open_that_found_no_room_leaves_the_file_to_those_who_write_it(
    operations: Writing, storage: FaultyStorage
) -> None:
    inode = inode_of(operations, b"a")
    writer = operations.open(inode, os.O_WRONLY)
    operations.write(writer.handle, 0, b"new")
    operations.files.count_max = 1  # type: ignore[misc]  # as above
    with pytest.raises(OSError, match="are open on this mount"):
        operations.open(inode, os.O_WRONLY | os.O_TRUNC)
    assert operations.flush(writer.handle)
    release(operations, writer.handle)
    assert bytes_of(storage, "a") == b"new"
    assert len(operations.files) == 0


def test_what_the_kernel_is_to_ask_no_more(operations: Writing, storage: FaultyStorage) -> None:
    """It answers EINVAL to programs from then on."""
    with pytest.raises(OSError, match="not implemented") as caught:
        operations.rename(ROOT_INODE, b"a", ROOT_INODE, b"new", 1)
    assert caught.value.errno == errno.ENOSYS
    assert bytes_of(storage, "a") == b"1"


def test_what_has_given_way_ends_where_no_other_is_longer(
    operations: Writing, storage: FaultyStorage
) -> None:
    inode = inode_of(operations, b"a")
    own = operations.open(inode, os.O_RDWR)
    operations.write(own.handle, 0, b"own")
    assert operations.flush(own.handle)
    storage.put("a", b"new")
    reader = operations.open(inode, os.O_RDONLY)
    assert bytes(operations.read(own.handle, 0, 100)) == b"own"
    assert bytes(operations.read(reader.handle, 0, 100)) == b"new"
    other = operations.open(inode, os.O_WRONLY)
    # Not committed: the version is what it was, and the size that the kernel is told is not.
    operations.write(other.handle, 0, b"longer")
    assert bytes(operations.read(own.handle, 0, 3)) == b"own"
    with pytest.raises(Stale):
        operations.read(own.handle, 0, 100)
    for opened in (own, reader, other):
        release(operations, opened.handle)
    assert bytes_of(storage, "a") == b"longer"
