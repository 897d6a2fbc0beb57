"""A mount whose process is killed or stopped while it is used."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

from forebay.cache import Cache
from tests.fuse._mount import PROGRAM, TIMEOUT_S, Mounted, errno_of, until
from tests.fuse.conftest import Mounting

GONE = (errno.ENOTCONN, errno.ECONNABORTED)


def kill(mount: Mounted) -> None:
    mount.process.kill()
    assert mount.ended() == -signal.SIGKILL


def is_asking(process: subprocess.Popen[bytes]) -> bool:
    """Tell whether a process sleeps, as one does that only reads files when a mount has not answered it."""
    return bool(psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)


def umount(place: Path) -> None:
    """Unmount what nobody serves any more, as users do."""
    done = subprocess.run(
        [*PROGRAM, "umount", "--lazy", str(place)], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode == 0, done.stderr
    assert not os.path.ismount(place)


def test_killed_with_files_open(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    mount = mounted()
    path = mount.path / "sub/deep/two.bin"
    data = (bucket / "sub/deep/two.bin").read_bytes()
    file, folder = os.open(path, os.O_RDONLY), os.open(mount.path / "sub", os.O_RDONLY)
    assert os.pread(file, 9, 0) == data[:9]
    kill(mount)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    for act in (
        lambda: os.pread(file, len(data), 0),
        lambda: os.listdir(folder),
        path.read_bytes,
        (mount.path / "unknown").stat,
        lambda: os.statvfs(mount.path),
    ):
        assert errno_of(act) in GONE
    umount(mount.path)
    with Mounted("d", mount.path) as again:
        assert (again.path / "sub/deep/two.bin").read_bytes() == data
        # What was open then stays what it is: an error at once.
        assert errno_of(lambda: os.pread(file, 9, 0)) in GONE
    for each in (file, folder):
        with suppress(OSError):
            os.close(each)
    assert attached.check().ok


def test_killed_while_it_is_read_by_many(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    mount = mounted()
    names = [str(mount.path / name) for name in ("sub/one.bin", "sub/deep/two.bin")]
    script = "while :; do cat {} > /dev/null || exit 3; echo; done".format(" ".join(names))
    readers = [subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, stderr=-3) for _ in range(4)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"\n"
    # Which is dropped, so that each goes on to ask the mount.
    mount.process.send_signal(signal.SIGKILL)
    for reader in readers:
        reader.communicate(timeout=TIMEOUT_S)
        assert reader.returncode == 3
    mount.ended()
    umount(mount.path)
    # What the killed one held of the cache is held no more.
    with Mounted("d", mount.path) as again:
        assert (again.path / "sub/one.bin").read_bytes() == (bucket / "sub/one.bin").read_bytes()
        attached.free("d")
        assert attached.check().ok
    assert attached.status()["blocks"] == 0


def test_a_mapped_page_of_a_killed_mount_is_an_error(
    attached: Cache, bucket: Path, mounted: Mounting
) -> None:
    """SIGBUS for what the kernel does not have, as of a disk that is gone; what it has stays readable."""
    mount = mounted()
    data = (bucket / "sub/deep/two.bin").read_bytes()
    with open(mount.path / "sub/deep/two.bin", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    assert mapped[:100] == data[:100]
    kill(mount)
    assert mapped[:100] == data[:100]
    child = os.fork()
    if child == 0:
        mapped.madvise(mmap.MADV_DONTNEED)
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        for offset in range(0, len(data), mmap.PAGESIZE):
            mapped[offset]
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status) or os.WTERMSIG(status) == signal.SIGBUS
    mapped.close()
    umount(mount.path)


def test_a_place_whose_mount_is_dead_is_told(attached: Cache, mounted: Mounting) -> None:
    mount = mounted()
    kill(mount)
    done = subprocess.run(
        [*PROGRAM, "mount", "d", str(mount.path)], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert done.returncode != 0
    assert "unmount it first" in done.stderr
    umount(mount.path)


def test_stopped_and_going_on(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    mount = mounted()
    data = (bucket / "sub/one.bin").read_bytes()
    assert (mount.path / "hello.txt").read_bytes() == b"hello\n"
    # The kernel knows the folders: of two that look one up for the first time, one waits for the other's
    # answer where no signal reaches it.
    os.stat(mount.path / "sub/deep")
    with open(mount.path / "hello.txt", "rb", buffering=0) as file:
        mount.stop()
        try:
            # The kernel answers what it has, and nobody else's use of the cache waits.
            assert os.pread(file.fileno(), 9, 0) == b"hello\n"
            assert attached.read("d/sub/one.bin") == data
            reader = subprocess.Popen(["cat", mount.path / "sub/one.bin"], stdout=subprocess.PIPE)
            until(lambda: is_asking(reader))
            # Who waits can be killed.
            other = subprocess.Popen(["cat", mount.path / "sub/deep/two.bin"], stdout=subprocess.PIPE)
            until(lambda: is_asking(other))
            other.kill()
            other.communicate(timeout=TIMEOUT_S)
            assert reader.poll() is None
        finally:
            mount.process.send_signal(signal.SIGCONT)
        assert reader.communicate(timeout=TIMEOUT_S)[0] == data
    assert (mount.path / "sub/deep/two.bin").read_bytes() == (bucket / "sub/deep/two.bin").read_bytes()


def test_a_stopped_mount_is_unmounted_lazily(attached: Cache, mounted: Mounting) -> None:
    mount = mounted()
    mount.stop()
    umount(mount.path)
    assert os.listdir(mount.path) == []
    mount.process.send_signal(signal.SIGCONT)
    assert mount.ended() == 0
