"""Writing through a mount when there is no room, the source is gone, or the mount is killed."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import MIB
from forebay.testing.tier import FaultyTier
from tests.fuse._mount import Mounted, errno_of, until
from tests.fuse.conftest import Mounting


@pytest.fixture
def folder(tmp_path: Path, cache: Cache) -> Path:
    """The folder that ``d`` is attached to, to be written."""
    folder = tmp_path / "written"
    folder.mkdir()
    (folder / "old").write_bytes(b"old")
    cache.attach("d", folder.as_uri(), writable=True)
    return folder


def staged(folder: Path) -> list[Path]:
    return [*folder.rglob("*.staged")]


def hold_to_no_room(path: Path, folder: Path, staging: Path, number: int) -> None:
    file = os.open(path / "old", os.O_WRONLY | os.O_TRUNC)

    def fill() -> None:
        for _ in range(40):
            os.write(file, bytes(MIB))

    assert errno_of(fill) == number
    # What lacks a part is never written, whoever heeds the error.
    assert errno_of(lambda: os.fsync(file)) == number
    assert errno_of(lambda: os.close(file)) == number
    assert (folder / "old").read_bytes() == b"old"
    assert (path / "old").read_bytes() == b"old"
    until(lambda: staged(staging) == [])
    (path / "new").write_bytes(bytes(3 * MIB))
    assert (folder / "new").stat().st_size == 3 * MIB


def test_staging_is_full(
    folder: Path, mounted: Mounting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FOREBAY_STAGING_MAX", "8MiB")
    path = mounted().path
    hold_to_no_room(path, folder, tmp_path / "cache", errno.EDQUOT)
    until(lambda: staged(tmp_path / "cache") == [])
    room = os.statvfs(path)
    assert room.f_bavail * room.f_frsize == 8 * MIB


def test_the_disk_is_full(
    folder: Path, mounted: Mounting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with FaultyTier(tmp_path / "disk", 24 * MIB, inode_count=64) as disk:
        monkeypatch.setenv("FOREBAY_STAGING_DIR", str(disk.path / "staging"))
        with Mounted("d", tmp_path / "mnt") as mount:
            hold_to_no_room(mount.path, folder, disk.path, errno.ENOSPC)


def test_the_source_is_gone_at_close(folder: Path, mounted: Mounting, tmp_path: Path) -> None:
    mount = mounted()
    file = os.open(mount.path / "new", os.O_WRONLY | os.O_CREAT)
    os.write(file, b"one")
    away = folder.rename(tmp_path / "away")
    assert errno_of(lambda: os.fsync(file)) == errno.EIO
    # Nothing is lost as long as it is open.
    away.rename(folder)
    os.fsync(file)
    assert (folder / "new").read_bytes() == b"one"
    folder.rename(away)
    os.write(file, b"two")
    assert errno_of(lambda: os.close(file)) == errno.EIO
    away.rename(folder)
    assert (mount.path / "new").read_bytes() == b"one"
    assert (mount.path / "old").read_bytes() == b"old"
    mount.process.terminate()
    assert mount.ended() == 0
    assert "new: 6 bytes that were not written are lost" in mount.said()


def test_what_is_open_when_the_mount_ends_is_not_written(folder: Path, mounted: Mounting) -> None:
    mount = mounted()
    file = os.open(mount.path / "old", os.O_WRONLY)
    os.write(file, b"new")
    mount.process.terminate()
    assert mount.ended() == 0
    with suppress(OSError):
        os.close(file)
    assert (folder / "old").read_bytes() == b"old"
    assert "old: was open when the mount ended, and was not written" in mount.said()


def test_killed_in_the_middle_of_a_write(folder: Path, mounted: Mounting, tmp_path: Path) -> None:
    mount = mounted()
    files = [os.open(mount.path / name, os.O_WRONLY | os.O_CREAT) for name in ("old", "new")]
    for file in files:
        os.write(file, bytes(5 * MIB))
    assert len(staged(tmp_path / "cache")) == 2
    mount.process.kill()
    mount.ended()
    for file in files:
        assert errno_of(lambda file=file: os.close(file)) in (None, errno.ENOTCONN, errno.ECONNABORTED)  # type: ignore[misc]
    path = mounted().path
    assert {entry.name: entry.stat().st_size for entry in os.scandir(path)} == {"old": 3}
    until(lambda: staged(tmp_path / "cache") == [])
    assert os.listdir(folder) == ["old"]
    (path / "new").write_bytes(b"new")
    assert (folder / "new").read_bytes() == b"new"


def test_the_dataset_is_detached_while_a_file_is_written(
    folder: Path, cache: Cache, mounted: Mounting
) -> None:
    file = os.open(mounted().path / "old", os.O_WRONLY)
    os.write(file, b"new")
    cache.detach("d")
    assert errno_of(lambda: os.close(file)) == errno.ESTALE
    assert (folder / "old").read_bytes() == b"old"
