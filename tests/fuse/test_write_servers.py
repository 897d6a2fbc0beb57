"""Writing through a mount to servers that are slow, refuse, or are written to by others meanwhile."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.cache import ROOT_INODE, Cache
from forebay.config import MIB
from forebay.fuse.options import MountOptions
from forebay.fuse.writing import Writing
from tests._s3 import BUCKET, Handler, give_keys
from tests._s3_writes import WritableS3
from tests.fuse._mount import TIMEOUT_S, errno_of
from tests.fuse.conftest import Mounting

WRITERS = 12


class Gate:
    """Holds what is sent to objects that are named so until it is opened."""

    def __init__(self) -> None:
        self.come = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, request: Handler) -> bool:
        if "slow" in request.path and request.command == "PUT":
            self.come.release()
            self.opened.wait(TIMEOUT_S)
        return False


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableS3]:
    give_keys(monkeypatch)
    with WritableS3() as storage:
        storage.objects |= {"old": b"old", "sub/only": b"only"}
        yield storage


@pytest.fixture
def path(cache: Cache, storage: WritableS3, mounted: Mounting) -> Path:
    cache.attach("d", f"s3://{BUCKET}", endpoint_url=storage.url, writable=True, attempts=1)
    return mounted().path


def test_an_upload_stands_in_nobodys_way(path: Path, storage: WritableS3, tmp_path: Path) -> None:
    gate = Gate()
    storage.interfere = gate
    (tmp_path / "data").write_bytes(b"data")
    writers = [
        subprocess.Popen(["cp", tmp_path / "data", path / f"slow{number}"]) for number in range(WRITERS)
    ]
    for _ in range(WRITERS):
        assert gate.come.acquire(timeout=TIMEOUT_S)
    (path / "quick").write_bytes(b"quick")
    assert (storage.objects["quick"], (path / "old").read_bytes()) == (b"quick", b"old")
    # What is on its way is seen here, and nowhere else.
    assert (path / "slow0").read_bytes() == b"data"
    assert "slow0" not in storage.objects
    gate.opened.set()
    assert [writer.wait(TIMEOUT_S) for writer in writers] == [0] * WRITERS
    assert {storage.objects[f"slow{number}"] for number in range(WRITERS)} == {b"data"}


def test_what_the_server_refuses_fails_the_close(path: Path, storage: WritableS3) -> None:
    def refuse(request: Handler) -> bool:
        if request.command == "PUT":
            request.refuse(403, "AccessDenied")
        return request.command == "PUT"

    storage.interfere = refuse
    file = os.open(path / "old", os.O_WRONLY | os.O_TRUNC)
    os.write(file, b"new")
    assert errno_of(lambda: os.close(file)) == errno.EACCES
    assert errno_of((path / "made").mkdir) == errno.EACCES
    assert ((path / "old").read_bytes(), storage.objects["old"]) == (b"old", b"old")


def test_created_by_another_before_the_close(path: Path, storage: WritableS3) -> None:
    for name, size in (("short", 10), ("long", 9 * MIB)):
        file = os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(file, bytes(size))
        storage.objects[name] = b"another's"
        assert errno_of(lambda file=file: os.close(file)) == errno.EEXIST  # type: ignore[misc]
        assert storage.objects[name] == b"another's"
    # Without O_EXCL it is written over.
    with open(path / "plain", "wb") as plain:
        plain.write(b"mine")
        storage.objects["plain"] = b"another's"
    assert storage.objects["plain"] == b"mine"


def test_a_directory_outlives_its_last_file(path: Path, storage: WritableS3) -> None:
    assert (path / "sub/only").read_bytes() == b"only"
    inode = (path / "sub").stat().st_ino
    (path / "sub/only").rename(path / "moved")
    assert "sub/only" not in storage.objects
    assert ((path / "sub").stat().st_ino, os.listdir(path / "sub")) == (inode, [])
    (path / "sub/again").write_bytes(b"again")
    assert ((path / "sub").stat().st_ino, os.listdir(path / "sub")) == (inode, ["again"])
    (path / "sub").rename(path / "other")
    assert storage.objects["other/again"] == b"again"
    (path / "other/again").unlink()
    (path / "other").rmdir()
    assert sorted(os.listdir(path)) == ["moved", "old"]


def test_where_no_empty_directories_are_kept(path: Path, storage: WritableS3) -> None:
    def take_for_object(request: Handler) -> bool:
        """Have the marker of a directory gone by the time it is looked for."""
        if request.command == "PUT" and request.path.endswith("/"):
            request.reply(200, ETag='"0"')
            return True
        return False

    storage.interfere = take_for_object
    (path / "made/inner").mkdir(parents=True)
    assert (os.listdir(path / "made"), os.listdir(path / "made/inner")) == (["inner"], [])
    assert not any(name.startswith("made") for name in storage.objects)
    (path / "made/inner/file").write_bytes(b"file")
    assert storage.objects["made/inner/file"] == b"file"
    (path / "made/inner").rename(path / "made/other")
    assert os.listdir(path / "made") == ["other"]
    (path / "made/empty").mkdir()
    (path / "made/empty").rename(path / "made/renamed")
    assert errno_of((path / "made").rmdir) == errno.ENOTEMPTY
    assert errno_of(lambda: (path / "made/renamed").rename(path / "made/other")) == errno.ENOTEMPTY
    assert sorted(os.listdir(path / "made")) == ["other", "renamed"]
    (path / "made/renamed").rmdir()
    assert os.listdir(path / "made") == ["other"]


def test_an_open_that_truncates_waits_where_it_stands_in_nobodys_way(
    cache: Cache, storage: WritableS3
) -> None:
    cache.attach("d", f"s3://{BUCKET}", endpoint_url=storage.url, writable=True, attempts=1)
    operations = Writing(cache.nodes("d"), MountOptions(), status=cache.status)
    made, attributes = operations.create(ROOT_INODE, b"new", os.O_WRONLY)
    assert operations.known_write(made.handle, 0, b"data") == 4
    # An upload of it would be waited for, with all else that is asked of the mount.
    assert operations.known_open(attributes.inode, os.O_WRONLY | os.O_TRUNC) is None
    again = operations.open(attributes.inode, os.O_WRONLY | os.O_TRUNC)
    found = operations.known_getattr(attributes.inode)
    assert found is not None
    assert found.size == 0
    for opened in (made, again):
        if operations.known_release(opened.handle) is None:
            operations.release(opened.handle)
    assert storage.objects["new"] == b""
    operations.close()
