"""Many files through a mount, by the programs that people use, and what a mount refuses them."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from tests.fuse._mount import errno_of
from tests.fuse.conftest import Mounting

FILES = 400


@pytest.fixture
def tree(tmp_path: Path, cache: Cache) -> Path:
    """A folder of many small files, attached as ``d``."""
    folder = tmp_path / "tree"
    for number in range(FILES):
        path = folder / f"{number % 7}/{number % 3}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number * 37 % 5_000))
    cache.attach("d", folder.as_uri(), max_age=None)
    return folder


def output_of(*words: object) -> list[str]:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_find_and_rsync_find_no_difference(tree: Path, mounted: Mounting) -> None:
    path = mounted().path
    for words in (("-type", "f", "-size", "+4k"), ("-type", "d"), ("-newermt", "2001-01-01")):
        # Directories of a mount have times and sizes of their own.
        kind = () if "-type" in words else ("-type", "f")
        found = [sorted(output_of("find", each, *kind, *words, "-printf", "%P\n")) for each in (tree, path)]
        assert found[0] == found[1]
    assert output_of("rsync", "-nrci", f"{tree}/", path) == []
    assert output_of("rsync", "-nrci", "--delete", f"{path}/", tree) == []
    assert output_of("diff", "-r", tree, path) == []
    assert output_of("tar", "cf", "/dev/null", "-C", path, ".") == []


def test_ls_does_not_ask_every_file_for_labels_and_access_lists(tree: Path, mounted: Mounting) -> None:
    mount = mounted()
    listed = output_of("ls", "-lR", mount.path)
    assert sum(line.startswith("-r--r--r-- ") for line in listed) == FILES
    # It asks again for each file unless it was told that the file system has none of that kind.
    assert mount.stats()["operations"].get("getxattr", {"count": 0})["count"] <= 4


@pytest.fixture
def descriptors() -> Iterator[None]:
    """Let this process open more files than usual."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_thousand_descriptors(tree: Path, mounted: Mounting, descriptors: None) -> None:
    mount = mounted()
    names = sorted(each.relative_to(tree) for each in tree.rglob("*") if each.is_file())
    opened = [
        (names[number % FILES], os.open(mount.path / names[number % FILES], os.O_RDONLY))
        for number in range(1_000)
    ]
    assert all(os.pread(file, 5_000, 0) == (tree / name).read_bytes() for name, file in opened)
    assert mount.stats()["open"]["files"] >= 1_000
    for _, file in opened:
        os.close(file)
    # The kernel tells of a close when it has time.
    while mount.stats()["open"]["files"] > 2:
        assert mount.process.poll() is None


def test_a_program_runs_by_its_mask_alone(cache: Cache, tmp_path: Path, mounted: Mounting) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/true").write_bytes(Path("/bin/true").read_bytes())
    cache.attach("d", (tmp_path / "bin").as_uri(), max_age=None)
    with pytest.raises(PermissionError):
        subprocess.run([mounted().path / "true"])
    path = mounted("-o", "fmask=0222").path / "true"
    for _ in range(2):
        assert subprocess.run([path]).returncode == 0


def _with_file(act: Callable[[int], object]) -> Callable[[Path], object]:
    def opened(path: Path) -> object:
        file = os.open(path / "0/0/0", os.O_RDONLY)
        try:
            return act(file)
        finally:
            os.close(file)

    return opened


@pytest.mark.parametrize(
    ("act", "number"),
    [
        (_with_file(lambda file: fcntl.ioctl(file, 0x5401, bytes(64))), errno.ENOTTY),
        (_with_file(lambda file: os.posix_fallocate(file, 0, 10)), errno.EBADF),
        (_with_file(lambda file: os.pwrite(file, b"x", 0)), errno.EBADF),
        (_with_file(lambda file: os.ftruncate(file, 0)), errno.EINVAL),
        (_with_file(lambda file: os.fchmod(file, 0o777)), errno.EROFS),
        (_with_file(lambda file: os.listdir(file)), errno.ENOTDIR),
        (_with_file(lambda file: fcntl.flock(file, fcntl.LOCK_EX)), None),
        (_with_file(lambda file: os.fsync(file)), None),
        (_with_file(lambda file: os.lseek(file, 10**15, os.SEEK_SET)), None),
        (_with_file(lambda file: os.pread(file, 10, 10**15)), None),
        (_with_file(lambda file: os.pread(file, 10, -1)), errno.EINVAL),
        (lambda path: os.mknod(path / "new"), errno.EROFS),
        (lambda path: os.open(path, os.O_TMPFILE | os.O_RDWR), errno.EROFS),
        (lambda path: os.access(path / "0/0/0", os.W_OK), None),
        (lambda path: os.stat(path / "0/0/0/below"), errno.ENOTDIR),
        (lambda path: os.stat(path / ".forebay/nothing"), errno.ENOENT),
        (lambda path: (path / ".forebay/stats").write_bytes(b""), errno.EROFS),
        (lambda path: os.getxattr(path / "0", "user.forebay.cached"), errno.ENODATA),
        (lambda path: os.getxattr(path / "0/0/0", "user.other"), errno.ENODATA),
        (lambda path: os.getxattr(path / "0/0/0", "security.other"), errno.EOPNOTSUPP),
        (lambda path: os.getxattr(path / "0", "system.posix_acl_default"), errno.EOPNOTSUPP),
        (lambda path: os.getxattr(path / ".forebay/stats", "security.selinux"), errno.EOPNOTSUPP),
        (lambda path: os.removexattr(path / "0/0/0", "user.forebay.cached"), errno.EROFS),
    ],
)
def test_what_is_refused_has_its_errno(
    tree: Path, mounted: Mounting, act: Callable[[Path], object], number: int | None
) -> None:
    path = mounted().path
    assert errno_of(lambda: act(path)) == number
