"""Records of mounts: seen while their process lives, whatever becomes of it."""

from __future__ import annotations

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


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("a file")
    with pytest.raises(FileExistsError, match="mounts"):
        MountRecord(str(tmp_path), {"mountpoint": "/mnt"})
