"""A mount in the background: what its parent waits for, says and returns; other processes play it."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forebay.cli.mount_process import serve_in_background
from forebay.cli.session import Session
from tests.fuse._mount import TIMEOUT_S, until

# Says something, then does as it is told, with a descriptor to say that it serves.
_SERVER = """
import os, signal, sys

descriptor = int(sys.argv[1])
print("words of the child", flush=True)
"""


def command(acts: str, descriptor: int) -> list[str]:
    return [sys.executable, "-c", _SERVER + acts, str(descriptor)]


def test_the_parent_returns_when_it_can_be_used_and_not_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    may_serve = tmp_path / "may serve"
    os.mkfifo(may_serve)
    acts = f"open({str(may_serve)!r}).read(); os.write(descriptor, b'ready\\n'); signal.pause()"
    with ThreadPoolExecutor(1) as threads:
        parent = threads.submit(
            serve_in_background, Session(), lambda fd: command(acts, fd), str(tmp_path), "/mnt/place"
        )
        log = tmp_path / "mounts/mnt-place.log"
        until(lambda: log.exists() and log.read_text() == "words of the child\n")
        assert not parent.done()
        may_serve.write_text("")
        assert parent.result(TIMEOUT_S) == 0
    said, _, log_path = capsys.readouterr().out.partition(", log: ")
    assert said.startswith("mounted on /mnt/place by process ")
    assert log_path == f"{log}\n"
    # It goes on by itself.
    pid = int(said.split()[-1])
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0) == (pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("acts", "code"),
    [
        ("sys.exit(1)", 1),
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("os.close(descriptor); sys.exit(2)", 2),
    ],
)
def test_what_the_child_failed_with_is_the_parents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], acts: str, code: int
) -> None:
    for _ in range(2):
        found = serve_in_background(Session(), lambda fd: command(acts, fd), str(tmp_path), "/mnt/place")
        assert found == code
        # Of this one, and not of those before it in the log.
        assert capsys.readouterr().err == "words of the child\n"


def test_log_names_are_short_and_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [f"/{'ü' * 100}/{number}/{'b' * 200}" for number in range(2)] + ["/mnt/short", "/" + "a" * 250]
    for place in places:
        serve_in_background(Session(), lambda fd: command("sys.exit(1)", fd), str(tmp_path), place)
    logs = {log.name for log in (tmp_path / "mounts").iterdir()}
    assert len(logs) == len(places)
    assert {"mnt-short.log", "a" * 250 + ".log"} < logs
    assert max(len(os.fsencode(name)) for name in logs) <= 255
