"""A mount that is written to, over a local folder and over a real S3 server: what was closed is there."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import MIB
from forebay.testing.s3 import S3Server
from tests.fuse._mount import Mounted, errno_of
from tests.fuse.conftest import Mounting

# More than a draft keeps in memory.
LARGE = os.urandom(3 * MIB + 17)


@pytest.fixture(params=["file", "s3"])
def folder(
    request: pytest.FixtureRequest, tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The folder that ``d`` is attached to, to be written, in one way or the other."""
    folder = tmp_path / "buckets/written"
    folder.mkdir(parents=True)
    (folder / "old.txt").write_bytes(b"old\n")
    (folder / "sub").mkdir()
    (folder / "sub/large").write_bytes(LARGE)
    if request.param == "file":
        cache.attach("d", folder.as_uri(), writable=True)
        yield folder
        return
    with S3Server(folder.parent) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        cache.attach("d", "s3://written", endpoint_url=server.endpoint_url, writable=True)
        yield folder


@pytest.fixture
def path(folder: Path, mounted: Mounting) -> Path:
    return mounted().path


def run(*words: object, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_that_it_is_written_to(folder: Path, mounted: Mounting) -> None:
    assert mounted().told.endswith("mnt1")
    mount = mounted("--read-only")
    assert mount.told.endswith(": read-only")
    assert errno_of(lambda: (mount.path / "new").write_bytes(b"")) == errno.EROFS
    assert errno_of(lambda: (mounted("-o", "ro").path / "old.txt").unlink()) == errno.EROFS


def test_what_was_closed_is_there(path: Path, folder: Path) -> None:
    for name, data in {"new": b"new\n", "empty": b"", "large": LARGE, "sub/new": b"x"}.items():
        (path / name).write_bytes(data)
        assert (folder / name).read_bytes() == data
        assert (path / name).read_bytes() == data
    (path / "old.txt").write_bytes(b"other")
    assert (folder / "old.txt").read_bytes() == b"other"
    with open(path / "old.txt", "ab") as file:
        file.write(b" and more")
    assert (folder / "old.txt").read_bytes() == b"other and more"
    assert sorted(os.listdir(path)) == ["empty", "large", "new", "old.txt", "sub"]


def test_writing_in_any_order(path: Path, folder: Path) -> None:
    expected = bytearray(LARGE)
    with open(path / "sub/large", "r+b", buffering=0) as file:
        for offset, data in [(1_000_000, b"middle"), (0, b"begin"), (5 * MIB, b"behind a hole")]:
            os.pwrite(file.fileno(), data, offset)
            expected.extend(bytes(max(offset + len(data) - len(expected), 0)))
            expected[offset : offset + len(data)] = data
        assert os.fstat(file.fileno()).st_size == len(expected)
        file.truncate(4 * MIB)
        del expected[4 * MIB :]
        file.truncate(4 * MIB + 5)
        expected.extend(bytes(5))
        file.seek(0)
        assert file.readall() == expected
        # Who opens it meanwhile sees the same.
        assert (path / "sub/large").read_bytes() == expected
        assert (folder / "sub/large").read_bytes() == LARGE
    assert (folder / "sub/large").read_bytes() == expected
    assert (path / "sub/large").read_bytes() == expected


def test_truncate_by_name_is_done_when_it_returns(path: Path, folder: Path) -> None:
    for size in (2, 0, 7):
        os.truncate(path / "old.txt", size)
        assert (folder / "old.txt").stat().st_size == size
        assert (path / "old.txt").stat().st_size == size
    assert (folder / "old.txt").read_bytes() == bytes(7)


def test_fsync_is_a_close(path: Path, folder: Path) -> None:
    with open(path / "log", "wb", buffering=0) as file:
        for line in (b"one\n", b"two\n"):
            file.write(line)
            os.fsync(file.fileno())
            assert (folder / "log").read_bytes().endswith(line)
        file.write(b"three\n")
    assert (folder / "log").read_bytes() == b"one\ntwo\nthree\n"


def test_written_through_a_map(path: Path, folder: Path) -> None:
    with open(path / "mapped", "w+b") as file:
        file.truncate(2 * MIB)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[MIB : MIB + 5] = b"bytes"
    assert (folder / "mapped").read_bytes() == bytes(MIB) + b"bytes" + bytes(MIB - 5)


def test_appending_by_several(path: Path, folder: Path) -> None:
    with open(path / "log", "ab", buffering=0) as one, open(path / "log", "ab", buffering=0) as other:
        for number in range(6):
            (one, other)[number % 2].write(b"%d\n" % number)
    assert (folder / "log").read_bytes() == b"0\n1\n2\n3\n4\n5\n"


def test_unlinked_while_it_is_open(path: Path, folder: Path) -> None:
    with open(path / "temporary", "w+b", buffering=0) as new, open(path / "sub/large", "rb") as old:
        (path / "temporary").unlink()
        (path / "sub/large").unlink()
        new.write(b"data")
        assert os.pread(new.fileno(), 9, 0) == b"data"
        assert old.read() == LARGE
        assert os.fstat(old.fileno()).st_size == len(LARGE)
        # The name is free.
        (path / "temporary").write_bytes(b"another")
    assert (folder / "temporary").read_bytes() == b"another"
    assert not (folder / "sub/large").exists()


def test_renaming_files(path: Path, folder: Path) -> None:
    before = (path / "old.txt").stat()
    (path / "old.txt").rename(path / "sub/new.txt")
    after = (path / "sub/new.txt").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not (folder / "old.txt").exists()
    (path / "other").write_bytes(b"other")
    with open(path / "sub/new.txt", "rb") as replaced:
        (path / "other").rename(path / "sub/new.txt")
        assert (path / "sub/new.txt").read_bytes() == b"other"
        assert replaced.read() == b"old\n"
    assert (folder / "sub/new.txt").read_bytes() == b"other"
    with open(path / "growing", "wb", buffering=0) as file:
        file.write(b"one")
        (path / "growing").rename(path / "grown")
        file.write(b"two")
        assert sorted(os.listdir(path)) == ["grown", "sub"]
    assert (folder / "grown").read_bytes() == b"onetwo"


def test_directories(path: Path, folder: Path) -> None:
    (path / "a").mkdir()
    assert errno_of(lambda: (path / "a").mkdir()) == errno.EEXIST
    (path / "a/b").mkdir()
    (path / "a/b/file").write_bytes(b"1")
    assert errno_of(lambda: (path / "a").rmdir()) == errno.ENOTEMPTY
    assert errno_of(lambda: (path / "a").rename(path / "sub")) == errno.ENOTEMPTY
    (path / "a").rename(path / "c")
    assert (path / "c/b/file").read_bytes() == b"1"
    assert (folder / "c/b/file").read_bytes() == b"1"
    (path / "c/b/file").unlink()
    # An object store has no such directory any more.
    assert os.listdir(path / "c/b") == []
    (path / "c/b").rmdir()
    (path / "c").rmdir()
    assert sorted(os.listdir(path)) == ["old.txt", "sub"]


def test_a_directory_that_is_open_stays_when_its_only_file_gets_another_name(path: Path) -> None:
    """As rsync does it: each file is made under another name, in a directory that it has open."""
    (path / "made").mkdir()
    made = os.open(path / "made", os.O_RDONLY | os.O_DIRECTORY)
    inode = os.fstat(made).st_ino
    for name in ("one", "two"):
        os.close(os.open(f".{name}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=made))
        os.rename(f".{name}.new", name, src_dir_fd=made, dst_dir_fd=made)
        assert (os.fstat(made).st_ino, os.stat(path / "made").st_ino) == (inode, inode)
    for name in ("one", "two"):
        os.unlink(name, dir_fd=made)
        assert os.fstat(made).st_ino == inode
    assert os.listdir(made) == []
    os.close(os.open("again", os.O_WRONLY | os.O_CREAT, dir_fd=made))
    assert os.listdir(path / "made") == ["again"]
    os.close(made)


ERRORS: list[tuple[Callable[[Path], object], int]] = [
    (lambda path: (path / "link").symlink_to("old.txt"), errno.EPERM),
    (lambda path: os.link(path / "old.txt", path / "link"), errno.EPERM),
    (lambda path: os.mkfifo(path / "fifo"), errno.EPERM),
    (lambda path: (path / ".forebay/new").write_bytes(b""), errno.EPERM),
    (lambda path: (path / ".forebay").rmdir(), errno.EPERM),
    (lambda path: (path / "old.txt").rename(path / ".forebay/new"), errno.EPERM),
    (lambda path: (path / ".forebay/stats").write_bytes(b""), errno.EROFS),
    (lambda path: (path / "nothing").unlink(), errno.ENOENT),
    (lambda path: (path / "nothing/new").write_bytes(b""), errno.ENOENT),
    (lambda path: (path / "old.txt/new").write_bytes(b""), errno.ENOTDIR),
    (lambda path: (path / "sub").write_bytes(b""), errno.EISDIR),
    (lambda path: (path / "sub").unlink(), errno.EISDIR),
    (lambda path: (path / "old.txt").rmdir(), errno.ENOTDIR),
    (lambda path: (path / "sub").rmdir(), errno.ENOTEMPTY),
    (lambda path: (path / "sub").rename(path / "old.txt"), errno.ENOTDIR),
    (lambda path: (path / "sub").rename(path / "sub/inner"), errno.EINVAL),
    (lambda path: os.open(path / "old.txt", os.O_CREAT | os.O_EXCL), errno.EEXIST),
    (lambda path: os.truncate(path / "old.txt", -1), errno.EINVAL),
    (lambda path: os.setxattr(path / "old.txt", "user.mine", b""), errno.EOPNOTSUPP),
    (lambda path: os.removexattr(path / "old.txt", "user.forebay.version"), errno.EOPNOTSUPP),
]


@pytest.mark.parametrize("folder", ["file"], indirect=True)
def test_errors(path: Path) -> None:
    found = [errno_of(lambda act=act: act(path)) for act, _ in ERRORS]  # type: ignore[misc]
    assert found == [number for _, number in ERRORS]


@pytest.mark.parametrize("folder", ["file"], indirect=True)
def test_mv_that_replaces_nothing(path: Path) -> None:
    (path / "new").write_bytes(b"new")
    subprocess.run(["mv", "-n", path / "new", path / "old.txt"], capture_output=True)
    assert ((path / "old.txt").read_bytes(), (path / "new").read_bytes()) == (b"old\n", b"new")
    run("mv", "-n", path / "new", path / "newer")
    assert (path / "newer").read_bytes() == b"new"


@pytest.mark.parametrize("folder", ["file"], indirect=True)
def test_what_the_source_does_not_keep_is_told_by_nobody(path: Path) -> None:
    file = path / "old.txt"
    mode = file.stat().st_mode
    file.chmod(0o755)
    os.chown(file, os.getuid(), os.getgid())
    assert file.stat().st_mode == mode
    # A time is kept by the mount.
    os.utime(file, ns=(1, 1_000_000_007))
    assert file.stat().st_mtime_ns == 1_000_000_007
    with open(path / "new", "wb") as new:
        new.write(b"data")
        new.flush()
        os.utime(new.fileno(), ns=(1, 2_000_000_007))
    assert (path / "new").stat().st_mtime_ns == 2_000_000_007
    assert {entry.name: entry.stat().st_mtime_ns for entry in os.scandir(path)}["new"] == 2_000_000_007
    new_data = (path / "new").read_bytes()
    (path / "new").write_bytes(new_data)
    assert (path / "new").stat().st_mtime_ns > 2_000_000_007


def test_tools(path: Path, folder: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "inner/empty").mkdir(parents=True)
    for number in range(5):
        (tree / f"inner/{number}").write_bytes(os.urandom(10_000 * number))
    (tree / "inner/large").write_bytes(LARGE)
    for number, file in enumerate(tree.rglob("*")):
        os.utime(file, (1, 1_500_000_000 + number))
    run("cp", "-a", tree, path / "copied")
    run("rsync", "-a", f"{tree}/", path / "synced")
    run("tar", "cf", path / "tree.tar", "-C", tree, ".")
    (path / "untarred").mkdir()
    run("tar", "xf", path / "tree.tar", "-C", path / "untarred")
    for name in ("copied", "synced", "untarred"):
        run("diff", "-r", tree, path / name)
    # Nothing is copied again.
    assert ">f" not in run("rsync", "-ai", f"{tree}/", path / "synced")
    run("diff", "-r", "--exclude=empty", tree / "inner", folder / "synced/inner")
    run("rm", "-r", path / "copied", path / "synced", path / "untarred")
    assert sorted(os.listdir(path)) == ["old.txt", "sub", "tree.tar"]


@pytest.mark.parametrize("folder", ["file"], indirect=True)
def test_git_and_sqlite(path: Path, folder: Path) -> None:
    git = ("git", "-c", "user.name=n", "-c", "user.email=e@example.com")
    run(*git, "init", "-q", path / "repository")
    (path / "repository/file").write_text("content\n")
    run(*git, "add", ".", cwd=path / "repository")
    run(*git, "commit", "-qm", "one", cwd=path / "repository")
    assert run(*git, "status", "--porcelain", cwd=path / "repository") == ""
    run("git", "fsck", "--strict", cwd=folder / "repository")
    statements = (
        "create table t(x); insert into t values (1), (2); delete from t where x = 1; select * from t;"
    )
    assert run("sqlite3", path / "base", statements) == "2\n"
    assert run("sqlite3", folder / "base", "select * from t; pragma integrity_check;") == "2\nok\n"


def test_close_to_open_between_two_mounts(folder: Path, mounted: Mounting) -> None:
    one, other = mounted().path, mounted().path
    for number in range(3):
        data = b"%d" % number
        (one / "shared").write_bytes(data)
        assert (other / "shared").read_bytes() == data
        with open(other / "shared", "ab") as file:
            file.write(b" more")
        assert (one / "shared").read_bytes() == data + b" more"
    (one / "shared").rename(one / "moved")
    assert errno_of(lambda: (other / "shared").read_bytes()) == errno.ENOENT
    assert (other / "moved").read_bytes() == b"2 more"
    (other / "new").write_bytes(b"new")
    (other / "new").rename(other / "moved")
    assert (one / "moved").read_bytes() == b"new"
    (other / "moved").unlink()
    assert errno_of(lambda: (one / "moved").read_bytes()) == errno.ENOENT


def test_two_mounts_and_the_library(folder: Path, cache: Cache, mounted: Mounting) -> None:
    path = mounted("--read-only").path
    for number in range(3):
        data = b"%d" % number * 100_000
        cache.put("d/shared", data)
        assert (path / "shared").read_bytes() == data
    cache.delete("d/shared")
    assert errno_of(lambda: (path / "shared").read_bytes()) == errno.ENOENT


@pytest.mark.parametrize("folder", ["file"], indirect=True)
def test_where_nothing_is_believed(folder: Path, cache: Cache, mounted: Mounting) -> None:
    cache.attach("e", folder.as_uri(), writable=True, max_age=0)
    path = mounted(what="e").path
    for number in range(3):
        (folder / "shared").write_bytes(b"outside %d" % number)
        assert (path / "shared").read_bytes() == b"outside %d" % number
        (path / "shared").write_bytes(b"inside")
        assert (folder / "shared").read_bytes() == b"inside"
    os.utime(path / "shared", ns=(1, 1_000_000_007))
    (path / "shared").rename(path / "moved")
    assert (path / "moved").stat().st_mtime_ns == 1_000_000_007
    (path / "moved").unlink()
    assert sorted(os.listdir(path)) == sorted(os.listdir(folder)) == ["old.txt", "sub"]


@pytest.mark.parametrize("folder", ["file"], indirect=True)
def test_created_exclusively_by_one_of_two(folder: Path, mounted: Mounting) -> None:
    one, other = mounted().path, mounted().path
    first = os.open(one / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    second = os.open(other / "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(first, b"first")
    os.write(second, b"second")
    os.close(first)
    assert errno_of(lambda: os.close(second)) == errno.EEXIST
    assert (folder / "new").read_bytes() == b"first"
    assert (other / "new").read_bytes() == b"first"


def verify(mount: Mounted, *words: str) -> None:
    run(
        *("fio", "--name=verify", f"--directory={mount.path}", "--size=8m", "--verify=crc32c"),
        *("--verify_fatal=1", "--do_verify=1", "--verify_state_save=0", *words),
    )


def test_fio_verifies_what_it_wrote(folder: Path, mounted: Mounting) -> None:
    mount = mounted()
    verify(mount, "--rw=write", "--bs=1m")
    verify(mount, "--rw=randwrite", "--bs=4k-64k", "--ioengine=psync", "--end_fsync=1")
    verify(mount, "--rw=randwrite", "--bs=4k", "--ioengine=mmap", "--size=2m")


def test_a_directory_that_was_opened_before_does_not_cut_a_file(folder: Path, path: Path) -> None:
    data = os.urandom(100_000)
    with open(path / "new", "w+b", buffering=0) as file, os.scandir(path) as entries:
        file.write(data)
        assert "new" in {entry.name for entry in entries}
        assert os.fstat(file.fileno()).st_size == len(data)
        assert os.pread(file.fileno(), len(data), 0) == data
    assert (folder / "new").read_bytes() == data
