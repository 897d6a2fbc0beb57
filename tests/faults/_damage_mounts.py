"""Mounts for the fault tests: a private mount namespace in a child, so that nothing has to be undone."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

_CLONE_NEWNS = 0x00020000


def mount(*arguments: str | Path) -> None:
    """Run mount(8). Raises: RuntimeError with what it said, which is mostly that it takes root."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"mount {' '.join(map(str, arguments))}: {done.stderr.strip()}")


def private_mounts() -> None:
    """Give this process mounts of its own; what it mounts from here on ends with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise RuntimeError(f"no mount namespace: {os.strerror(ctypes.get_errno())}; these tests take root")
    mount("--make-rprivate", "/")


def cover(path: Path | str, size: str = "64m") -> None:
    """Mount an empty tmpfs over a directory."""
    mount("-t", "tmpfs", "-o", f"size={size},mode=1777", "tmpfs", str(path))
