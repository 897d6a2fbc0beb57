"""The processes of a mount beside the one that serves it: in the background, and under supervision."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from forebay.cli.app import DONE
from forebay.cli.background import start_detached
from forebay.cli.interrupt import asked_to_end_if_interrupted, undone_if_interrupted
from forebay.cli.session import Session
from forebay.cli.text import echo_json, printable
from forebay.fuse.readiness import tell_ready, wait_ready
from forebay.fuse.supervisor import Supervisor

# A file name may have 255 bytes, a character four.
_LOG_NAME_BYTES_MAX: Final = 250
_LOG_NAME_END: Final = 50
_DIGEST_DIGITS: Final = 16

# A command that serves a mount, and tells the descriptor that it is given when it does.
Command = Callable[[int], list[str]]


def serve_in_background(session: Session, command: Command, cache_dir: str, mountpoint: str) -> int:
    """Start the command that serves a mountpoint, and return as soon as it can be used, or has failed.

    What it says goes into a file of the cache directory; where it fails, here too.
    """
    log = _log_of(cache_dir, mountpoint)
    said_before = log.stat().st_size if log.exists() else 0
    ours, theirs = os.pipe()
    try:
        pid = start_detached(command(theirs), str(log), keep=theirs)
    finally:
        os.close(theirs)
    with undone_if_interrupted(lambda: os.kill(pid, signal.SIGTERM)):
        is_ready = wait_ready(ours)
    if not is_ready:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        _tell_of_failure(log, said_before)
        return code if code > 0 else 128 - code
    if session.as_json:
        echo_json({"mountpoint": mountpoint, "pid": pid, "log": str(log)})
    else:
        click.echo(f"mounted on {printable(mountpoint)} by process {pid}, log: {printable(str(log))}")
    return DONE


def serve_supervised(command: Command, mountpoint: str, ready_fd: int | None) -> int:
    """Run the command that serves a mountpoint, and another when it dies, until one ends by itself."""
    supervisor = Supervisor(command, mountpoint, lambda: tell_ready(ready_fd))
    with asked_to_end_if_interrupted(supervisor.stop):
        return supervisor.run()


def _log_of(cache_dir: str, mountpoint: str) -> Path:
    folder = Path(cache_dir) / "mounts"
    folder.mkdir(exist_ok=True)
    name = os.path.abspath(mountpoint).strip("/").replace("/", "-")
    if len(os.fsencode(name)) > _LOG_NAME_BYTES_MAX:
        # Its end says most to people, and the digest tells it from others.
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:_DIGEST_DIGITS]
        name = f"{digest}-{name[-_LOG_NAME_END:]}"
    return folder / f"{name}.log"


def _tell_of_failure(log: Path, said_before: int) -> None:
    """Repeat on standard error what the process has said."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(said_before)
        sys.stderr.write(file.read().decode(errors="replace"))
