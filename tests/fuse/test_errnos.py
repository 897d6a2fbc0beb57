"""Each line of the table of errnos in docs/semantics.md, by what a program does with real mounts."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import resource
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import MIB
from tests._s3 import BUCKET, Handler, give_keys
from tests._s3_writes import WritableS3
from tests.fuse._mount import errno_of
from tests.fuse.conftest import BLOCK_BYTES, Mounting

SEMANTICS = Path(__file__).parents[2] / "docs/semantics.md"
LARGE_BYTES = 4 * BLOCK_BYTES
OBJECT_BYTES_MAX = 5 << 40
DIRECTORIES_MAX = 1_024
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2

# What takes more than one act of a program, and the tests of it.
ELSEWHERE = {
    "EBADF": "tests/unit/fuse/test_operations.py: test_a_handle_that_is_not_open",
    "ECONNABORTED": "tests/fuse/test_dead.py: test_killed_with_files_open",
    "ENOSPC": "tests/fuse/test_write_faults.py: test_the_disk_is_full",
    "ENOSYS": "tests/unit/fuse/test_writing.py: test_what_the_kernel_is_to_ask_no_more",
    "ENOTCONN": "tests/fuse/test_dead.py: test_killed_with_files_open",
    "ESHUTDOWN": "tests/unit/fuse/test_operations.py: test_numbers_of_what_has_none",
    "ETIMEDOUT": "tests/fuse/test_sources.py: test_a_stopped_source_is_given_up_in_time",
}


class World:
    """One bucket, mounted to be read, to be written, and by a manifest."""

    def __init__(self, storage: WritableS3, cache: Cache, mounted: Mounting) -> None:
        self.storage = storage
        storage.objects |= {
            "file": b"file",
            "changes": os.urandom(LARGE_BYTES),
            "sub/one": b"1",
            "two/x": b"x",
        }
        storage.objects |= dict.fromkeys(("forbidden", "broken"), b"1")
        for name in ("d", "listed", "away"):
            cache.attach(
                *(name, f"s3://{BUCKET}"),
                endpoint_url=storage.url,
                writable=True,
                max_age=0 if name == "d" else 60,
                attempts=1,
            )
        cache.create_manifest("listed", "one")
        cache.use_manifest("listed", "one")
        self.reads: Path = mounted("--read-only").path
        self.writes: Path = mounted().path
        self.listed: Path = mounted(what="listed").path
        self.away: Path = mounted(what="away").path
        assert (self.away / "file").read_bytes() == b"file"
        cache.detach("away")
        storage.interfere = self.interfere

    def interfere(self, request: Handler) -> bool:
        if "list-type" in request.path or request.command not in ("GET", "PUT"):
            return False
        if "forbidden" in request.path:
            request.refuse(403, "AccessDenied")
        elif "broken" in request.path:
            request.refuse(501, "Broken")
        else:
            return False
        return True


@pytest.fixture
def world(cache: Cache, monkeypatch: pytest.MonkeyPatch, mounted: Mounting) -> Iterator[World]:
    give_keys(monkeypatch)
    monkeypatch.setenv("FOREBAY_STAGING_MAX", str(2 * OBJECT_BYTES_MAX))
    with WritableS3() as storage:
        yield World(storage, cache, mounted)


def call(name: str, *arguments: object) -> None:
    """Call what Python has no function for."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def rename_with(flags: int, path: Path, target: Path) -> None:
    call("renameat2", -100, os.fsencode(path), -100, os.fsencode(target), flags)


def read_what_has_changed(world: World) -> None:
    with open(world.reads / "changes", "rb", buffering=0) as file:
        os.pread(file.fileno(), 10, 0)
        world.storage.objects["changes"] = os.urandom(LARGE_BYTES)
        os.stat(world.reads / "changes")
        os.pread(file.fileno(), 10, 3 * BLOCK_BYTES)


def create_what_another_creates(world: World) -> None:
    file = os.open(world.writes / "made", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    world.storage.objects["made"] = b"another's"
    os.close(file)


def open_too_many_directories(world: World) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * DIRECTORIES_MAX), hard))
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(DIRECTORIES_MAX + 1):
            stack.callback(os.close, os.open(world.listed, os.O_RDONLY | os.O_DIRECTORY))


def with_file(act: Callable[[int], object], world: World) -> None:
    with open(world.writes / "file", "r+b", buffering=0) as file:
        act(file.fileno())


def listen(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(world.writes / "socket"))


# In order: the last ones leave something behind.
ACTS: list[tuple[str, Callable[[World], object]]] = [
    ("ENOENT", lambda world: (world.reads / "nothing").read_bytes()),
    ("ENOENT", lambda world: (world.listed / "nothing").read_bytes()),
    ("ESTALE", lambda world: (world.away / "file").read_bytes()),
    ("ESTALE", read_what_has_changed),
    ("EACCES", lambda world: (world.reads / "forbidden").read_bytes()),
    ("EACCES", lambda world: (world.writes / "forbidden").write_bytes(b"2")),
    ("EIO", lambda world: (world.reads / "broken").read_bytes()),
    ("EISDIR", lambda world: (world.reads / "sub").read_bytes()),
    ("EISDIR", lambda world: (world.writes / "sub").unlink()),
    ("ENOTDIR", lambda world: (world.reads / "file/below").read_bytes()),
    ("ENOTDIR", lambda world: os.listdir(world.reads / "file")),
    ("EROFS", lambda world: (world.reads / "new").write_bytes(b"")),
    ("EROFS", lambda world: (world.reads / "file").unlink()),
    ("EROFS", lambda world: (world.listed / "new").write_bytes(b"")),
    ("EROFS", lambda world: (world.listed / "file").write_bytes(b"")),
    ("EEXIST", lambda world: os.open(world.writes / "file", os.O_CREAT | os.O_EXCL)),
    ("EEXIST", create_what_another_creates),
    ("EEXIST", lambda world: (world.writes / "sub").mkdir()),
    ("ENOTEMPTY", lambda world: (world.writes / "sub").rmdir()),
    ("ENOTEMPTY", lambda world: (world.writes / "sub").rename(world.writes / "two")),
    ("EDQUOT", lambda world: os.truncate(world.writes / "file", 2 * OBJECT_BYTES_MAX + MIB)),
    ("EFBIG", lambda world: os.truncate(world.writes / "file", OBJECT_BYTES_MAX + 1)),
    ("EPERM", lambda world: (world.writes / "link").symlink_to("file")),
    ("EPERM", lambda world: os.link(world.writes / "file", world.writes / "link")),
    ("EPERM", lambda world: os.mkfifo(world.writes / "fifo")),
    ("EPERM", lambda world: os.mknod(world.writes / "device", stat.S_IFBLK, os.makedev(7, 0))),
    ("EPERM", listen),
    ("EPERM", lambda world: (world.writes / ".forebay/new").write_bytes(b"")),
    ("EPERM", lambda world: (world.writes / ".forebay").rmdir()),
    ("EINVAL", lambda world: rename_with(RENAME_NOREPLACE, world.writes / "file", world.writes / "new")),
    ("EINVAL", lambda world: rename_with(RENAME_EXCHANGE, world.writes / "file", world.writes / "broken")),
    ("EINVAL", lambda world: os.readlink(world.reads / "file")),
    ("ENODATA", lambda world: os.getxattr(world.reads / "file", "user.other")),
    ("EOPNOTSUPP", lambda world: os.getxattr(world.reads / "file", "security.selinux")),
    ("EOPNOTSUPP", lambda world: os.getxattr(world.reads / "sub", "system.posix_acl_access")),
    (
        "EOPNOTSUPP",
        partial(with_file, lambda file: call("fallocate", file, 0, ctypes.c_long(0), ctypes.c_long(10))),
    ),
    ("ENOTTY", partial(with_file, lambda file: fcntl.ioctl(file, 0x5401, bytes(64)))),
    ("ENFILE", open_too_many_directories),
]


def errnos_of_the_table() -> set[str]:
    _, _, table = SEMANTICS.read_text().partition("\n### A mount\n")
    table, _, _ = table.partition("\n### ")
    heads = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    return {name for head in heads for name in re.findall(r"`(E[A-Z]+)`", head)}


def test_the_table_and_the_tests_name_the_same() -> None:
    assert errnos_of_the_table() == {name for name, _ in ACTS} | ELSEWHERE.keys()
    for place in ELSEWHERE.values():
        path, _, name = place.partition(": ")
        assert f"def {name}(" in (SEMANTICS.parents[1] / path).read_text()


def test_each_line_of_the_table(world: World) -> None:
    found = [errno_of(partial(act, world)) for _, act in ACTS]
    names = ["none" if number is None else errno.errorcode[number] for number in found]
    # The same number as EOPNOTSUPP.
    assert [name.replace("ENOTSUP", "EOPNOTSUPP") for name in names] == [name for name, _ in ACTS]
    # What failed has left the object as it was.
    assert world.storage.objects["file"] == b"file"
    assert world.storage.objects["made"] == b"another's"
