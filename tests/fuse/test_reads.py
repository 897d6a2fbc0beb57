"""What a mount shows: the very tree, the very bytes, as any file system does."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from forebay.cache import Cache
from tests.fuse._mount import errno_of
from tests.fuse.conftest import BLOCK_BYTES, Mounting


def tree_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_tree_is_the_bucket(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    mount = mounted()
    assert tree_of(mount.path) == tree_of(bucket)
    # Again, from the kernel's cache.
    assert tree_of(mount.path) == tree_of(bucket)


def test_what_one_warmed_the_mount_hits(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    with attached.read("d/sub/one.bin") as view:
        data = bytes(view)
    assert (mounted().path / "sub/one.bin").read_bytes() == data
    assert attached.accounts()["d"].requests["gets"] == 1


def test_attributes(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    mount = mounted()
    found, there = (mount.path / "sub/one.bin").stat(), (bucket / "sub/one.bin").stat()
    assert (found.st_size, int(found.st_mtime)) == (there.st_size, int(there.st_mtime))
    assert (found.st_blocks, found.st_nlink) == (-(-there.st_size // 512), 1)
    assert stat.filemode(found.st_mode) == "-r--r--r--"
    assert stat.filemode((mount.path / "sub").stat().st_mode) == "dr-xr-xr-x"


def test_owner_and_mode_are_as_told(attached: Cache, mounted: Mounting) -> None:
    mount = mounted("--uid", "1234", "-o", "gid=77,umask=027")
    found = (mount.path / "hello.txt").stat()
    assert (found.st_uid, found.st_gid, stat.filemode(found.st_mode)) == (1234, 77, "-r-xr-x---")


def test_inodes_are_the_same_in_every_mount(attached: Cache, mounted: Mounting) -> None:
    one, other = mounted(), mounted()
    # Found by listing here, by name there.
    names = {entry.name: entry.inode() for entry in os.scandir(one.path)}
    assert {name: os.stat(other.path / name).st_ino for name in names} == names


def test_ranges(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    name, data = "sub/deep/two.bin", (bucket / "sub/deep/two.bin").read_bytes()
    with open(mounted().path / name, "rb", buffering=0) as file:
        for offset in (0, 1, BLOCK_BYTES - 1, 2 * BLOCK_BYTES - 5, len(data) - 1, len(data), len(data) + 9):
            for length in (1, 10, BLOCK_BYTES + 1, len(data)):
                assert os.pread(file.fileno(), length, offset) == data[offset : offset + length]
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert mapped[:] == data


def test_direct_reads(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    data = (bucket / "sub/deep/two.bin").read_bytes()
    descriptor = os.open(mounted().path / "sub/deep/two.bin", os.O_RDONLY | os.O_DIRECT)
    with mmap.mmap(-1, 256 * 1024) as buffer:
        assert os.preadv(descriptor, [buffer], 4096) == len(data) - 4096
        assert buffer[: len(data) - 4096] == data[4096:]
    os.close(descriptor)


def test_a_program_in_the_mount_runs(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    (bucket / "true").write_bytes(Path("/bin/true").read_bytes())
    mount = mounted("--umask", "022")
    assert subprocess.run([mount.path / "true"]).returncode == 0


ERRORS: dict[str, tuple[Callable[[Path], object], int]] = {
    "read what is not there": (lambda path: (path / "nothing").read_bytes(), errno.ENOENT),
    "read below a file": (lambda path: (path / "hello.txt/more").read_bytes(), errno.ENOTDIR),
    "read a directory": (lambda path: (path / "sub").read_bytes(), errno.EISDIR),
    "list a file": (lambda path: os.listdir(path / "hello.txt"), errno.ENOTDIR),
    "create": (lambda path: (path / "new").write_bytes(b""), errno.EROFS),
    "open to write": (lambda path: (path / "hello.txt").write_bytes(b""), errno.EROFS),
    "unlink": (lambda path: (path / "hello.txt").unlink(), errno.EROFS),
    "mkdir": (lambda path: (path / "new").mkdir(), errno.EROFS),
    "rmdir": (lambda path: (path / "sub").rmdir(), errno.EROFS),
    "chmod": (lambda path: (path / "hello.txt").chmod(0o777), errno.EROFS),
    "utime": (lambda path: os.utime(path / "hello.txt"), errno.EROFS),
    "truncate": (lambda path: os.truncate(path / "hello.txt", 0), errno.EROFS),
    "rename": (lambda path: (path / "hello.txt").rename(path / "new"), errno.EROFS),
    "symlink": (lambda path: (path / "new").symlink_to("hello.txt"), errno.EROFS),
    "link": (lambda path: os.link(path / "hello.txt", path / "new"), errno.EROFS),
    "mkfifo": (lambda path: os.mkfifo(path / "new"), errno.EROFS),
    "setxattr": (lambda path: os.setxattr(path / "hello.txt", "user.other", b""), errno.EROFS),
    "removexattr": (lambda path: os.removexattr(path / "hello.txt", "user.other"), errno.EROFS),
    "readlink": (lambda path: os.readlink(path / "hello.txt"), errno.EINVAL),
    "getxattr": (lambda path: os.getxattr(path / "hello.txt", "user.other"), errno.ENODATA),
}


def test_errors(attached: Cache, mounted: Mounting) -> None:
    path = mounted().path
    found = {what: errno_of(partial(act, path)) for what, (act, _) in ERRORS.items()}
    assert found == {what: number for what, (_, number) in ERRORS.items()}


def test_extended_attributes(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    path = mounted().path / "sub/one.bin"
    size = path.stat().st_size
    assert os.getxattr(path, "user.forebay.cached") == f"0/{size}".encode()
    path.read_bytes()
    values = {
        name.removeprefix("user.forebay."): os.getxattr(path, name).decode() for name in os.listxattr(path)
    }
    version = attached.stat("d/sub/one.bin").version
    assert values == {
        "cached": f"{size}/{size}",
        "version": version,
        "location": os.uname().nodename,
        "pinned": "0",
    }


def test_the_control_folder_is_hidden(attached: Cache, mounted: Mounting) -> None:
    mount = mounted()
    (mount.path / "hello.txt").read_bytes()
    assert ".forebay" not in os.listdir(mount.path)
    stats = mount.stats()
    assert stats["pid"] == mount.process.pid
    assert stats["operations"]["read"]["count"] >= 1
    assert os.listdir(mount.path / ".forebay") == ["stats"]
    assert ".forebay" in os.listdir(mounted("--show-control").path)


def test_file_system_figures(attached: Cache, mounted: Mounting) -> None:
    attached.read("d/sub/one.bin").release()
    attached.set_quota("d", 10 * BLOCK_BYTES)
    found = os.statvfs(mounted().path)
    assert found.f_blocks * found.f_frsize == 10 * BLOCK_BYTES
    assert found.f_bavail * found.f_frsize < 10 * BLOCK_BYTES - 100 * 1024 + 4096


def test_many_files_open_at_a_time(attached: Cache, mounted: Mounting) -> None:
    mount = mounted()
    descriptors = [os.open(mount.path / "hello.txt", os.O_RDONLY) for _ in range(900)]
    assert {os.pread(each, 9, 0) for each in descriptors} == {b"hello\n"}
    assert mount.stats()["open"]["files"] >= 900
    for each in descriptors:
        os.close(each)
