"""Mounts of programs, ours and others', that live as long as they are measured.

A program runs in the foreground as a child of this process. Whatever happens to this process, a shell that
waits for its end unmounts what it leaves, so that no mount without a server stays behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

MOUNT_TIMEOUT_S = 30.0
EXIT_TIMEOUT_S = 10.0
POLL_S = 0.02
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
PAGES_DENTRIES_AND_INODES = "3"
WARDEN = 'read -r _; umount -l "$1"; kill -9 -"$0"'


@dataclass(frozen=True)
class Mount:
    """A mounted file system and the process that serves it; root is where the measured files are."""

    root: Path
    pid: int


@contextmanager
def mounted(
    command: Sequence[str], mountpoint: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Mount]:
    """Run a program that mounts there; gives the mount, and in the end unmounts and waits for the program.

    Raises: RuntimeError (it did not mount, with what it said).
    """
    mountpoint.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # some serve from a child of theirs
        )
        warden = subprocess.Popen(
            ["/bin/sh", "-c", WARDEN, str(process.pid), str(mountpoint)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            if not _wait_until_mounted(process, mountpoint):
                log.seek(0)
                said = log.read().decode(errors="replace")
                raise RuntimeError(f"{command[0]} did not mount {mountpoint}: {said}")
            yield Mount(mountpoint, process.pid)
        finally:
            warden.kill()
            warden.communicate()
            _end(process, mountpoint)


def drop_kernel_caches() -> None:
    """Make the kernel forget the pages, names and attributes that it can, of every file system.

    Raises: PermissionError (not root).
    """
    DROP_CACHES.write_text(PAGES_DENTRIES_AND_INODES)


def raise_read_ahead(mountpoint: Path, read_ahead_kb: int) -> None:
    """Let the kernel read so far ahead on that mount."""
    device = mountpoint.stat().st_dev
    place = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    place.write_text(str(read_ahead_kb))


def _wait_until_mounted(process: subprocess.Popen[bytes], mountpoint: Path) -> bool:
    deadline_s = time.monotonic() + MOUNT_TIMEOUT_S
    while not mountpoint.is_mount():
        if process.poll() is not None or time.monotonic() > deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def _end(process: subprocess.Popen[bytes], mountpoint: Path) -> None:
    """Unmount, which ends the program; one that does not end is killed with its children."""
    # Of one that did not mount or has unmounted already, umount says so and no more.
    subprocess.run(["umount", "--lazy", mountpoint], check=False, stderr=subprocess.DEVNULL)
    process.terminate()
    try:
        process.wait(EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
