"""Mounts made as users make them, by a process of their own, for tests that look at the files in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

PROGRAM = (sys.executable, "-m", "forebay")
TIMEOUT_S = 60


def errno_of(act: Callable[[], object]) -> int | None:
    """Return the errno with which an act fails, None if it does not."""
    try:
        act()
    except OSError as error:
        return error.errno
    return None


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what comes by itself."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


class Mounted:
    """A mount, which is there when this is; a context manager that ends it, whatever has become of it.

    arguments are those of ``forebay mount`` behind the place. Leaving it asks the process to end and expects
    that it did so well, unless `ended` was called before.
    """

    def __init__(self, what: str, place: Path, *arguments: str) -> None:
        place.mkdir(exist_ok=True)
        self.path = place
        self.process = subprocess.Popen(
            [*PROGRAM, "mount", what, str(place), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        # The line that tells of the mount comes when it can be used; none comes if it failed.
        self.told = self.process.stdout.readline().rstrip("\n")
        if not self.told:
            raise AssertionError(f"not mounted, exit code {self.process.wait(TIMEOUT_S)}: {self.said()}")
        assert os.path.ismount(place)

    def said(self) -> str:
        """Return what the process has said on standard error; it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def stats(self) -> dict[str, Any]:
        """Return what the mount tells of itself."""
        stats = json.loads((self.path / ".forebay/stats").read_bytes())
        assert isinstance(stats, dict)
        return stats

    def stop(self) -> None:
        """Stop the process; return when each of its threads has stopped.

        Until then one may take a request from the kernel, and who has asked can no longer be killed.
        """
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def ended(self) -> int:
        """Wait for the process to end by itself and return its exit code."""
        return self.process.wait(TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        was_running = self.process.poll() is None
        try:
            if was_running:
                self.process.send_signal(signal.SIGTERM)
                code = self.process.wait(TIMEOUT_S)
                assert code == 0 or kind is not None, f"exit code {code}: {self.said()}"
        finally:
            self.process.kill()
            self.process.wait()
            # What a process that was killed has left behind.
            unmounted = subprocess.run(["umount", "--lazy", str(self.path)], capture_output=True)
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe is not None
                pipe.close()
        assert unmounted.returncode != 0 or kind is not None or not was_running, "it was left mounted"
