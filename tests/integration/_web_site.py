"""A folder of known files, and real web servers over one, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forebay.config import KIB
from forebay.testing.s3 import find_rclone

EXIT_TIMEOUT_S = 20.0
DATA = os.urandom(300 * KIB + 17)


def make_site(folder: Path) -> Path:
    """Make the files, an hour old, and return the folder."""
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "big").write_bytes(DATA)
    (folder / "sub/a b+ü.txt").write_bytes(b"12345")
    (folder / "sub/deep/empty").touch()
    long_ago = time.time() - 3_600
    for path in folder.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    return folder


@contextmanager
def plain_server(folder: Path) -> Iterator[str]:
    """Run ``python -m http.server`` (no ranges, no ETags, a connection for each request); gives its URL."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with _running(command, folder, re.compile(r"port (\d+)")) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def ranged_server(folder: Path) -> Iterator[str]:
    """Run ``rclone serve http`` (ranges, no ETags, no redirect for directories); gives its URL."""
    command = [find_rclone(), "serve", "http", ".", "--addr", "127.0.0.1:0", "--dir-cache-time", "0s"]
    with _running(command, folder, re.compile(r"http://127\.0\.0\.1:(\d+)")) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], folder: Path, announced: re.Pattern[str]) -> Iterator[str]:
    """Run a server that says where it listens, and give the port."""
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        # What it says later is read too, or it would wait with a full pipe.
        rest = threading.Thread(target=deque, args=(process.stdout, 0))
        try:
            found = next(filter(None, map(announced.search, process.stdout)), None)
            assert found is not None, "the server ended without saying where it listens"
            rest.start()
            yield found[1]
        finally:
            process.terminate()
            process.wait(EXIT_TIMEOUT_S)
            if rest.ident is not None:
                rest.join()
