"""Supervision of the process that serves a mount, with processes that play it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.fuse import supervisor
from forebay.fuse.supervisor import Supervisor

# Says that it serves, unless told not to, and plays the n-th part of its script.
_SERVER = """
import os, pathlib, signal, sys, time

folder, parts, descriptor = pathlib.Path(sys.argv[1]), sys.argv[2].split(","), int(sys.argv[3])
number = len(list(folder.iterdir()))
(folder / str(number)).touch()
part = parts[min(number, len(parts) - 1)]
if part != "refuse":
    os.write(descriptor, b"ready\\n")
os.close(descriptor)
if part == "die":
    os.kill(os.getpid(), signal.SIGKILL)
if part == "stay":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    (folder.parent / "stays").touch()
    while True:
        time.sleep(60)
sys.exit(3 if part == "refuse" else 0)
"""


# Makes a supervisor of a process that plays a script, and the list of times that it was ready.
Supervised = Callable[[str], tuple[Supervisor, list[str]]]


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Supervised:
    """Supervision without pauses."""
    monkeypatch.setattr(supervisor, "_PAUSE_S_MIN", 0.001)
    (tmp_path / "starts").mkdir()

    def make(script: str) -> tuple[Supervisor, list[str]]:
        ready: list[str] = []
        command = [sys.executable, "-c", _SERVER, str(tmp_path / "starts"), script]
        return Supervisor(
            lambda ready_fd: [*command, str(ready_fd)], str(tmp_path / "mnt"), lambda: ready.append("ready")
        ), ready

    return make


def starts(tmp_path: Path) -> int:
    return len(list((tmp_path / "starts").iterdir()))


def test_one_that_dies_is_followed_by_another(supervised: Supervised, tmp_path: Path) -> None:
    one, ready = supervised("die,die,end")
    assert one.run() == 0
    assert (starts(tmp_path), ready) == (3, ["ready"])


def test_one_that_never_served_is_not_tried_again(supervised: Supervised, tmp_path: Path) -> None:
    one, ready = supervised("refuse,end")
    assert one.run() == 3
    assert (starts(tmp_path), ready) == (1, [])


def test_one_that_cannot_serve_again_at_once_is_tried_until_it_can(
    supervised: Supervised, tmp_path: Path
) -> None:
    one, ready = supervised("die,refuse,refuse,end")
    assert one.run() == 0
    assert (starts(tmp_path), ready) == (4, ["ready"])


def test_stopped_it_ends_the_process_and_starts_no_other(supervised: Supervised, tmp_path: Path) -> None:
    one, _ = supervised("stay")
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(one.run()))
    thread.start()
    while not (tmp_path / "stays").exists():
        assert thread.is_alive()
    one.stop()
    thread.join(60)
    assert (codes, starts(tmp_path)) == ([0], 1)


def test_stopped_before_it_began_it_starts_nothing(supervised: Supervised, tmp_path: Path) -> None:
    one, _ = supervised("stay")
    one.stop()
    assert (one.run(), starts(tmp_path)) == (0, 0)
