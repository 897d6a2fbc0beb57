"""Records of mounts: seen while their process lives, whatever becomes of it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.fuse.records import MountRecord, live_mounts

_HOLDER = """
import sys
from forebay.fuse.records import MountRecord

MountRecord(sys.argv[1], {"mountpoint": sys.argv[2]}).write({"read": {"count": 3}})
print("written", flush=True)
sys.stdin.read()
"""


def holder(cache_dir: Path, mountpoint: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _HOLDER, str(cache_dir), mountpoint]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


def test_a_record_is_seen_until_it_is_closed(tmp_path: Path) -> None:
    with MountRecord(str(tmp_path), {"mountpoint": "/b"}) as record:
        with MountRecord(str(tmp_path), {"mountpoint": "/a", "dataset": "d"}):
            record.write({"read": {"count": 1}})
            assert live_mounts(str(tmp_path)) == [
                {"mountpoint": "/a", "dataset": "d", "operations": {}},
                {"mountpoint": "/b", "operations": {"read": {"count": 1}}},
            ]
        assert [found["mountpoint"] for found in live_mounts(str(tmp_path))] == ["/b"]
    assert not list((tmp_path / "mounts").iterdir())


def test_without_a_folder_there_are_no_mounts(tmp_path: Path) -> None:
    assert live_mounts(str(tmp_path)) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    process = holder(tmp_path, "/mnt")
    assert live_mounts(str(tmp_path)) == [{"mountpoint": "/mnt", "operations": {"read": {"count": 3}}}]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert live_mounts(str(tmp_path)) == []
    assert not list((tmp_path / "mounts").iterdir())


@pytest.mark.parametrize("step", ["flock", "rename"])
def test_what_a_process_left_that_was_killed_over_a_new_record_is_removed(tmp_path: Path, step: str) -> None:
    """Killed before the lock is taken, or before it has its name; what has no lock yet is no record."""
    script = (
        "import fcntl, os, pathlib, signal, sys\n"
        "from forebay.fuse.records import MountRecord\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{'fcntl.flock' if step == 'flock' else 'pathlib.Path.rename'} = die\n"
        "MountRecord(sys.argv[1], {'mountpoint': '/mnt'})\n"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)]).returncode == -signal.SIGKILL
    assert len(list((tmp_path / "mounts").iterdir())) == 1
    assert live_mounts(str(tmp_path)) == []
    assert not list((tmp_path / "mounts").iterdir())


def test_what_a_process_left_that_was_killed_over_its_figures_is_removed(tmp_path: Path) -> None:
    process = holder(tmp_path, "/mnt")
    (lock,) = (tmp_path / "mounts").glob("*.lock")
    begun = lock.with_name(f".{lock.stem}.json")
    begun.write_text("{")
    # Its process is at it.
    assert len(live_mounts(str(tmp_path))) == 1
    assert begun.exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert live_mounts(str(tmp_path)) == []
    assert not list((tmp_path / "mounts").iterdir())


def test_a_lock_that_was_swept_away_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, swept = fcntl.flock, list[bool]()

    def sweep_first(descriptor: int, operation: int) -> None:
        if not swept:
            swept.append(True)
            live_mounts(str(tmp_path))
        flock(descriptor, operation)

    monkeypatch.setattr("forebay.fuse.records.fcntl.flock", sweep_first)
    with MountRecord(str(tmp_path), {"mountpoint": "/mnt"}):
        assert [found["mountpoint"] for found in live_mounts(str(tmp_path))] == ["/mnt"]
    assert not list((tmp_path / "mounts").iterdir())


def test_a_record_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, text: str) -> None:
        path.write_bytes(b"{")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(OSError, match="No space"):
        MountRecord(str(tmp_path), {"mountpoint": "/mnt"})
    assert not list((tmp_path / "mounts").iterdir())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("a file")
    with pytest.raises(FileExistsError, match="mounts"):
        MountRecord(str(tmp_path), {"mountpoint": "/mnt"})
