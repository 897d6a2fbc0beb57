"""Unmounting, by whoever mounted: with the programs that the system has for it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from typing import Final

from forebay.errors import ConfigError
from forebay.fuse.mounts import FILE_SYSTEM, mount_at

_TIMEOUT_S: Final = 30.0


def unmount(mountpoint: str, *, lazy: bool = False) -> None:
    """Unmount what forebay has mounted there; its process ends by that.

    lazy: also while it is in use: it is gone for all who come, and ends when the last who use it have.
    Raises: ConfigError (nothing of forebay is mounted there; no program to do it); OSError (EBUSY; what the
    program says).
    """
    found = mount_at(mountpoint)
    if found is None:
        raise ConfigError(f"{mountpoint}: nothing is mounted there")
    if found.file_system != FILE_SYSTEM:
        raise ConfigError(f"{mountpoint}: has {found.file_system} mounted, which is not forebay's")
    try:
        done = subprocess.run(
            _command(found.path, lazy), stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(errno.ETIMEDOUT, "could not be unmounted in time; try --lazy", mountpoint) from error
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        number = errno.EBUSY if "busy" in words else errno.EIO
        hint = "; end what uses it, or unmount it with --lazy" if number == errno.EBUSY else ""
        raise OSError(number, f"could not be unmounted: {words}{hint}", mountpoint)


def _command(place: str, lazy: bool) -> list[str]:
    """Return the command: root's own, or that of a user who has mounted. Raises: ConfigError."""
    if os.geteuid() == 0 and (program := shutil.which("umount")):
        return [program, "--no-canonicalize", *(["--lazy"] if lazy else []), place]
    program = shutil.which("fusermount3") or shutil.which("fusermount")
    if program is None:
        raise ConfigError("unmounting needs fusermount3: install the package fuse3")
    return [program, "-u", *(["-z"] if lazy else []), place]
