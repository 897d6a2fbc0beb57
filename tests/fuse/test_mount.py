"""Making and ending mounts: by the command, by signals, by the kernel; and what cannot be mounted."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from forebay.cache import Cache
from tests.fuse._mount import PROGRAM, TIMEOUT_S, errno_of
from tests.fuse.conftest import Mounting


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def test_it_says_what_it_serves(attached: Cache, mounted: Mounting) -> None:
    mount = mounted()
    assert mount.told == f"mounted d (s3://bucket) on {mount.path}: read-only, immutable"


def test_json(attached: Cache, mounted: Mounting) -> None:
    mount = mounted("--json", "-o", "ro,noauto,x-systemd.automount,uid=5")
    told = json.loads(mount.told)
    assert told.keys() == {"dataset", "uri", "mountpoint", "immutable", "cache_dir", "options"}
    assert (told["dataset"], told["options"]["read_only"], told["options"]["uid"]) == ("d", True, 5)
    assert json.loads(run("umount", "--json", str(mount.path)).stdout) == {"unmounted": str(mount.path)}
    assert mount.ended() == 0


def test_umount_ends_the_process(attached: Cache, mounted: Mounting) -> None:
    mount = mounted()
    assert run("umount", str(mount.path)).stdout == f"unmounted {mount.path}\n"
    assert mount.ended() == 0
    assert not os.path.ismount(mount.path)
    assert list(mount.path.iterdir()) == []


def test_an_unmount_by_the_system_ends_the_process(attached: Cache, mounted: Mounting) -> None:
    mount = mounted()
    subprocess.run(["umount", str(mount.path)], check=True)
    assert mount.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_files_are_open(
    attached: Cache, mounted: Mounting, number: signal.Signals
) -> None:
    mount = mounted()
    descriptor = os.open(mount.path / "hello.txt", os.O_RDONLY)
    mount.process.send_signal(number)
    assert mount.ended() == 0
    assert not os.path.ismount(mount.path)
    assert errno_of(lambda: os.pread(descriptor, 1, 0)) in (errno.ENOTCONN, errno.ECONNABORTED)
    with suppress(OSError):
        os.close(descriptor)


def test_umount_of_what_is_in_use_says_so(attached: Cache, mounted: Mounting) -> None:
    mount = mounted()
    with open(mount.path / "hello.txt", "rb"):
        done = run("umount", str(mount.path))
        assert (done.returncode, "busy" in done.stderr, "--lazy" in done.stderr) == (1, True, True)
        assert run("umount", "--lazy", str(mount.path)).returncode == 0
    assert mount.ended() == 0


@pytest.mark.parametrize(
    ("what", "place", "words"),
    [
        ("nothing", "here", "nothing"),
        ("d", "missing", "No such file or directory"),
        ("d", "file", "Not a directory"),
    ],
)
def test_what_cannot_be_mounted_is_told(
    attached: Cache, tmp_path: Path, what: str, place: str, words: str
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "file").touch()
    done = run("mount", what, str(tmp_path / place))
    assert done.returncode != 0
    assert words in done.stderr


def test_umount_leaves_others_alone(tmp_path: Path) -> None:
    assert "nothing is mounted" in run("umount", str(tmp_path)).stderr
    assert "not forebay's" in run("umount", "/proc").stderr


def test_a_place_is_mounted_once(attached: Cache, mounted: Mounting) -> None:
    mount = mounted()
    done = run("mount", "d", str(mount.path))
    assert done.returncode == 2
    assert "forebay:d mounted there" in done.stderr


def test_a_uri_is_attached_by_its_last_part(cache: Cache, bucket: Path, mounted: Mounting) -> None:
    mount = mounted("--immutable", what=bucket.as_uri())
    assert (mount.path / "hello.txt").read_bytes() == b"hello\n"
    assert [(each.name, each.max_age) for each in cache.datasets()] == [("bucket", None)]
