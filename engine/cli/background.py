"""Programs of ours that a command starts, and that outlive it."""

from __future__ import annotations

import os
import sys

from forebay.cli.session import Session


def own_command(session: Session, cache_dir: str) -> list[str]:
    """Return how forebay is called so that it means the same cache; a command's name is to follow."""
    # -P: a folder of our name where the user stands is not the package.
    command = [sys.executable, "-P", "-m", "forebay", "--cache-dir", cache_dir]
    if session.config:
        command += ["--config", session.config]
    for key, value in session.given.items():
        command += ["--set", f"{key}={value}"]
    return command


def start_detached(command: list[str], log: str, keep: int | None = None) -> int:
    """Start a program without a terminal, its output at the end of a file; return its process id.

    keep: a descriptor that it has as well, under the same number. Raises: OSError.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    if keep is not None:
        os.set_inheritable(keep, True)
    return os.posix_spawn(
        command[0],
        command,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
