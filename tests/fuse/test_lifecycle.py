"""How mounts begin and end: in the background, under supervision, by mount(8) and fstab, with systemd."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from forebay.cache import Cache
from forebay.fuse.mounts import mount_at
from forebay.fuse.records import live_mounts
from tests.fuse._mount import PROGRAM, TIMEOUT_S, errno_of
from tests.fuse.conftest import Mounting

GONE = (errno.ENOTCONN, errno.ECONNABORTED)
HELPER = Path(sys.executable).parent / "mount.forebay"


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def forebay(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run(*PROGRAM, *arguments)


def waited_for(what: Callable[[], Any]) -> Any:
    """Return what comes when it comes."""
    end_s = time.monotonic() + TIMEOUT_S
    while not (found := what()):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    return found


def serving_pid(cache: Cache) -> int:
    """Return the process that serves the only mount."""
    return int(waited_for(lambda: live_mounts(cache.path))[0]["pid"])


def has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A mount point that is taken away behind the test, with all processes that serve it."""
    path = tmp_path / "a mount"
    path.mkdir()
    yield path
    while mount_at(str(path)) is not None:
        run("umount", "--lazy", path)


def test_in_the_background_it_is_there_when_the_command_returns(attached: Cache, place: Path) -> None:
    done = forebay("mount", "d", place, "--background", "--json")
    assert done.returncode == 0, done.stderr
    assert (place / "hello.txt").read_bytes() == b"hello\n"
    pid = json.loads(done.stdout)["pid"]
    assert pid == serving_pid(attached)
    assert forebay("umount", place).returncode == 0
    waited_for(lambda: has_ended(pid))
    assert live_mounts(attached.path) == []


def test_in_the_background_a_failure_is_told_where_it_was_asked_for(attached: Cache, place: Path) -> None:
    done = forebay("mount", "d", place / "none", "--background")
    assert done.returncode == 1
    assert "is no mount point" in done.stderr
    done = forebay("mount", "nothing", place, "--background")
    assert done.returncode == 1
    assert "no dataset 'nothing' is attached" in done.stderr


def test_in_the_background_at_a_place_with_a_long_name(attached: Cache, place: Path) -> None:
    long = place / ("ü" * 100) / ("b" * 200)
    long.mkdir(parents=True)
    done = forebay("mount", "d", long, "--background", "--json")
    try:
        assert done.returncode == 0, done.stderr
        log = Path(json.loads(done.stdout)["log"])
        assert log.exists()
        assert log.name.endswith("b" * 50 + ".log")
    finally:
        run("umount", long)


def test_a_mount_whose_process_was_killed_comes_back(attached: Cache, mounted: Mounting) -> None:
    mount = mounted("--supervise")
    served = serving_pid(attached)
    descriptor = os.open(mount.path / "sub/one.bin", os.O_RDONLY)
    os.kill(served, signal.SIGKILL)
    waited_for(lambda: serving_pid(attached) != served)
    # Only what was open is lost, with an error and not for ever.
    with pytest.raises(OSError, match=r"not connected|aborted"):
        os.pread(descriptor, 1, 90_000)
    with suppress(OSError):
        os.close(descriptor)
    assert (mount.path / "hello.txt").read_bytes() == b"hello\n"


def lockers_of(folder: Path) -> set[int]:
    """Return the processes that have locks on files below a folder."""
    inodes = set()
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            inodes.add(path.stat().st_ino)
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines() if " -> " not in line]
    return {int(pid) for *_, pid, place, _, _ in locks if int(place.rpartition(":")[2]) in inodes}


def test_nothing_is_left_of_mounts_that_were_killed(attached: Cache, bucket: Path, mounted: Mounting) -> None:
    mount = mounted("--supervise")
    supervisor, killed = psutil.Process(mount.process.pid), set()
    assert (mount.path / "hello.txt").read_bytes() == b"hello\n"
    descriptors = supervisor.num_fds()
    for _ in range(2):
        served = serving_pid(attached)
        killed.add(served)
        with open(mount.path / "sub/one.bin", "rb", buffering=0) as file, os.scandir(mount.path):
            os.kill(served, signal.SIGKILL)
            waited_for(lambda: serving_pid(attached) not in killed)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert errno_of(partial(os.pread, file.fileno(), 1, 90_000)) in GONE
            # All else goes on.
            assert (mount.path / "sub/one.bin").read_bytes() == (bucket / "sub/one.bin").read_bytes()
            assert (mount.path / "hello.txt").read_bytes() == b"hello\n"
            with suppress(OSError):
                file.close()
    # It waits for the child that it has just begun by a descriptor, for a moment.
    waited_for(lambda: supervisor.num_fds() == descriptors)
    assert [part.mountpoint for part in psutil.disk_partitions(all=True)].count(str(mount.path)) == 1
    (record,) = live_mounts(attached.path)
    assert record["pid"] not in killed
    # The list of locks is not of one moment: one that others give up meanwhile may hide another.
    waited_for(lambda: record["pid"] in lockers_of(Path(attached.path)))
    assert killed.isdisjoint(lockers_of(Path(attached.path)))
    assert attached.check().ok
    mount.process.terminate()
    assert mount.ended() == 0
    assert not list((Path(attached.path) / "mounts").iterdir())


def test_an_unmount_ends_the_supervisor_as_well(attached: Cache, mounted: Mounting) -> None:
    mount = mounted("--supervise")
    assert forebay("umount", mount.path).returncode == 0
    assert mount.ended() == 0


def test_a_supervisor_that_is_told_to_end_unmounts(attached: Cache, mounted: Mounting) -> None:
    mount = mounted("--supervise")
    mount.process.terminate()
    assert mount.ended() == 0
    assert mount_at(str(mount.path)) is None
    assert live_mounts(attached.path) == []


def test_one_in_the_background_is_supervised(attached: Cache, place: Path) -> None:
    assert forebay("mount", "d", place, "--background", "--supervise").returncode == 0
    served = serving_pid(attached)
    os.kill(served, signal.SIGKILL)
    waited_for(lambda: serving_pid(attached) != served)
    assert (place / "hello.txt").read_bytes() == b"hello\n"
    assert forebay("umount", place).returncode == 0


def in_namespace(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the shell where mount.forebay stands in /sbin."""
    sbin = tmp_path / "sbin"
    sbin.mkdir()
    (sbin / "mount.forebay").symlink_to(HELPER)
    overlay = f"mount -t overlay overlay -o lowerdir={sbin}:/usr/sbin /usr/sbin"
    return run("unshare", "--mount", "sh", "-euc", f"{overlay}\n{script}")


def test_mount_8_mounts_by_its_helper(attached: Cache, place: Path, tmp_path: Path) -> None:
    done = in_namespace(
        tmp_path,
        f"mount -t forebay d '{place}' -o ro,cache_dir={attached.path}\n"
        f"cat '{place}/hello.txt'\nfindmnt -no FSTYPE,SOURCE '{place}'\numount '{place}'",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "hello\nfuse.forebay forebay:d\n" in done.stdout


def test_a_line_of_fstab_mounts(attached: Cache, place: Path, tmp_path: Path) -> None:
    options = f"ro,noauto,_netdev,supervise,cache_dir={attached.path}"
    escaped = str(place).replace(" ", "\\040")
    (tmp_path / "fstab").write_text(f"d {escaped} forebay {options} 0 0\n")
    done = in_namespace(
        tmp_path, f"mount -T {tmp_path}/fstab '{place}'\ncat '{place}/hello.txt'\numount '{place}'"
    )
    assert done.returncode == 0, done.stderr
    assert "hello\n" in done.stdout


@pytest.mark.parametrize(
    ("options", "is_run"), [("user", False), ("noexec,noatime", False), ("users,exec,relatime", True)]
)
def test_what_fstab_says_to_the_kernel_reaches_it(
    attached: Cache, bucket: Path, place: Path, tmp_path: Path, options: str, is_run: bool
) -> None:
    (bucket / "program").write_text("#!/bin/sh\necho it runs\n")
    escaped = str(place).replace(" ", "\\040")
    said = f"ro,noauto,umask=022,{options},cache_dir={attached.path}"
    (tmp_path / "fstab").write_text(f"d {escaped} forebay {said} 0 0\n")
    done = in_namespace(
        tmp_path,
        f"mount -T {tmp_path}/fstab '{place}'\nfindmnt -no OPTIONS '{place}'\n"
        f"'{place}/program' || echo it does not\numount '{place}'",
    )
    assert done.returncode == 0, done.stderr
    *_, told, said_by_program = done.stdout.splitlines()
    assert ("noexec" in told, "noatime" in told) == (not is_run, "noatime" in options)
    assert {"nosuid", "nodev", "ro"} <= set(told.split(","))
    assert said_by_program == ("it runs" if is_run else "it does not")


def test_mount_8_is_told_of_a_failure(attached: Cache, place: Path, tmp_path: Path) -> None:
    done = in_namespace(tmp_path, f"mount -t forebay nothing '{place}' -o ro,cache_dir={attached.path}")
    assert done.returncode == 32
    assert "no dataset 'nothing' is attached" in done.stderr


def test_systemd_is_told_when_it_serves(attached: Cache, mounted: Mounting, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening, pytest.MonkeyPatch.context() as patch:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(TIMEOUT_S)
        patch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        mounted("--supervise")
        assert listening.recv(100) == b"READY=1"


@pytest.mark.parametrize(("arguments", "kib"), [(("--read-ahead", "2MiB"), 2048), ((), 1024)])
def test_the_kernel_reads_as_far_ahead_as_asked(
    arguments: tuple[str, ...], kib: int, attached: Cache, mounted: Mounting
) -> None:
    found = mount_at(str(mounted(*arguments).path))
    assert found is not None
    file = Path(f"/sys/class/bdi/{found.device}/read_ahead_kb")
    waited_for(lambda: int(file.read_text()) == kib)


def test_where_the_read_ahead_may_not_be_set_it_says_so(attached: Cache, place: Path, tmp_path: Path) -> None:
    done = in_namespace(
        tmp_path,
        f"mount -o remount,bind,ro /sys\n"
        f"{sys.executable} -m forebay mount d '{place}' --background\ncat '{place}/hello.txt'\n"
        f"umount '{place}'\ncat {attached.path}/mounts/*.log",
    )
    assert done.returncode == 0, done.stderr
    assert "read-ahead" in done.stdout


def test_status_and_top_show_mounts(attached: Cache, mounted: Mounting) -> None:
    mount = mounted()
    assert (mount.path / "hello.txt").read_bytes() == b"hello\n"

    def counted() -> bool:
        (shown,) = json.loads(forebay("status", "--json").stdout)["mounts"]
        assert (shown["mountpoint"], shown["dataset"]) == (str(mount.path), "d")
        return "read" in shown["operations"]

    waited_for(counted)
    shown = forebay("top", "--once", "--interval", "0.1").stdout
    assert str(mount.path) in shown
