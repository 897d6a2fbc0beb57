"""Two versions of one object open at a time: each handle has the bytes of its own, or ESTALE."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from forebay.cache import Cache
from tests._s3 import BUCKET, FakeS3, Handler, give_keys
from tests._s3_writes import WritableS3
from tests.fuse._mount import Mounted, errno_of
from tests.fuse.conftest import BLOCK_BYTES, Mounting

OLD = os.urandom(2 * BLOCK_BYTES + 17)


class WrittenMount(NamedTuple):
    """The object's path in a mount that is written to, and the server that has it."""

    path: Path
    storage: WritableS3


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    give_keys(monkeypatch)
    with FakeS3() as storage:
        storage.objects["a"] = OLD
        yield storage


@pytest.fixture
def mount(cache: Cache, storage: FakeS3, mounted: Mounting) -> Mounted:
    cache.attach("d", f"s3://{BUCKET}", endpoint_url=storage.url, max_age=0)
    return mounted()


@pytest.mark.parametrize("length", [len(OLD), 5 * BLOCK_BYTES])
def test_an_open_file_does_not_show_pages_of_another_version(
    mount: Mounted, storage: FakeS3, length: int
) -> None:
    path = mount.path / "a"
    with open(path, "rb", buffering=0) as old:
        assert os.pread(old.fileno(), 100, 0) == OLD[:100]
        storage.objects["a"] = new = os.urandom(length)
        with open(path, "rb", buffering=0) as file:
            assert file.read() == new
            for offset in range(0, length, 10_000):
                try:
                    found = os.pread(old.fileno(), 10_000, offset)
                except OSError as error:
                    found = b""
                    number = error.errno
                    if number != errno.ESTALE:
                        raise
                assert found in (b"", OLD[offset : offset + len(found)])
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(file.fileno(), length, 0) == new
    # The old is closed: from now on the kernel keeps pages of the new.
    for _ in range(2):
        assert path.read_bytes() == new


def test_behind_the_end_of_an_old_version_is_no_end_of_the_new(mount: Mounted, storage: FakeS3) -> None:
    path = mount.path / "a"
    with open(path, "rb", buffering=0) as old:
        assert os.pread(old.fileno(), 100, 0) == OLD[:100]
        storage.objects["a"] = new = os.urandom(5 * BLOCK_BYTES)
        assert path.stat().st_size == len(new)
        with open(path, "rb", buffering=0) as file:
            assert errno_of(lambda: os.pread(old.fileno(), 100, 4 * BLOCK_BYTES)) == errno.ESTALE
            assert os.pread(file.fileno(), len(new), 0) == new
        assert path.read_bytes() == new


@pytest.fixture
def written(cache: Cache, monkeypatch: pytest.MonkeyPatch, mounted: Mounting) -> Iterator[WrittenMount]:
    give_keys(monkeypatch)
    with WritableS3() as storage:
        storage.objects["a"] = OLD
        cache.attach("d", f"s3://{BUCKET}", endpoint_url=storage.url, max_age=0, writable=True, attempts=1)
        yield WrittenMount(mounted().path / "a", storage)


def test_an_open_file_of_a_writable_mount_does_not_show_another_version(written: WrittenMount) -> None:
    path, storage = written
    with open(path, "rb", buffering=0) as old:
        assert os.pread(old.fileno(), 100, 0) == OLD[:100]
        storage.objects["a"] = new = os.urandom(len(OLD))
        with open(path, "rb", buffering=0) as file:
            assert file.read() == new
            for offset in range(0, len(OLD), 10_000):
                try:
                    found = os.pread(old.fileno(), 10_000, offset)
                except OSError as error:
                    if error.errno != errno.ESTALE:
                        raise
                else:
                    assert found == OLD[offset : offset + 10_000]
    for _ in range(2):
        assert path.read_bytes() == new


def test_what_was_written_here_does_not_show_what_another_has_put(written: WrittenMount) -> None:
    path, storage = written
    with open(path, "r+b", buffering=0) as own:
        own.write(b"own")
        os.fsync(own.fileno())
        assert storage.objects["a"] == b"own" + OLD[3:]
        storage.objects["a"] = new = os.urandom(len(OLD))
        with open(path, "rb", buffering=0) as file:
            assert file.read() == new
            assert os.pread(own.fileno(), len(OLD), 0) == b"own" + OLD[3:]
    assert path.read_bytes() == new


def test_behind_the_end_of_what_was_written_here_is_no_end_of_what_another_has_put(
    written: WrittenMount,
) -> None:
    path, storage = written
    with open(path, "r+b", buffering=0) as own:
        own.truncate(10_000)
        own.write(b"own")
        os.fsync(own.fileno())
        storage.objects["a"] = new = os.urandom(len(OLD))
        with open(path, "rb", buffering=0) as file:
            # The kernel has one size for both, and shows zeros up to it where it is given less.
            for offset in (9_900, 10_000, 50_000):
                assert errno_of(lambda offset=offset: os.pread(own.fileno(), 200, offset)) == errno.ESTALE  # type: ignore[misc]
            assert os.pread(own.fileno(), 8_000, 0) == b"own" + OLD[3:8_000]
            assert file.read() == new
    assert path.read_bytes() == new


def refuse(request: Handler) -> bool:
    if request.command == "PUT":
        request.refuse(403, "AccessDenied")
    return request.command == "PUT"


def test_what_could_not_be_written_is_not_shown_when_it_is_opened_again(written: WrittenMount) -> None:
    path, storage = written
    assert path.read_bytes() == OLD
    file = os.open(path, os.O_WRONLY)
    os.write(file, b"lost")
    storage.interfere = refuse
    assert errno_of(lambda: os.close(file)) == errno.EACCES
    storage.interfere = None
    assert path.read_bytes() == OLD
