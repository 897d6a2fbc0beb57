"""Saying that a mount serves: by a pipe, and to systemd."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from forebay.fuse.readiness import tell_ready, wait_ready


def test_who_waits_at_the_pipe_is_told() -> None:
    ours, theirs = os.pipe()
    tell_ready(theirs)
    assert wait_ready(ours) is True


def test_a_pipe_that_closes_says_that_it_failed() -> None:
    ours, theirs = os.pipe()
    os.close(theirs)
    assert wait_ready(ours) is False


def test_who_no_longer_waits_does_no_harm() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    tell_ready(theirs)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(theirs)


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told(is_abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"forebay-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}" if is_abstract else str(tmp_path / name))
        listening.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if is_abstract else str(tmp_path / name))
        tell_ready(None)
        assert listening.recv(100) == b"READY=1"


def test_where_nobody_listens_any_more_the_mount_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    ours, theirs = os.pipe()
    tell_ready(theirs)
    assert wait_ready(ours) is True
