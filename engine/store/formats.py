"""Folders that older versions of forebay left beside this version's own: removed when nobody has them open.

A cache directory and its tiers hold one folder a format, ``v0``, ``v1``, ... A version reads and writes only
its own, leaves those of newer versions alone, and removes an older one only while it holds the ``open.lock``
in it alone, which whoever has that one open holds shared.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from forebay.config import FORMAT_FOLDER

_NAME: Final = re.compile(r"v(0|[1-9][0-9]*)")
_LOCK_FILE: Final = "open.lock"
_FLOCK: Final = "hhqqi4x"  # struct flock: type, whence, start, length, pid


def _number(name: str) -> int | None:
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def _older_formats(folder: str) -> list[str]:
    current = _number(FORMAT_FOLDER)
    assert current is not None
    numbers = {name: _number(name) for name in os.listdir(folder)}
    return [name for name, number in numbers.items() if number is not None and number < current]


@contextmanager
def _held_alone(folder: str) -> Iterator[bool]:
    """Hold a format's open.lock alone, without waiting; False where it is in use, or is no lock file."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        # O_NONBLOCK: what lies there may be a FIFO.
        lock = os.open(_LOCK_FILE, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        if not stat.S_ISREG(os.fstat(lock).st_mode):
            yield False
            return
        request = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        try:
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, request)
        except (BlockingIOError, PermissionError):
            yield False
            return
        yield True
    finally:
        os.close(lock)


def remove_older_formats(cache_dir: str, tier_paths: Iterable[str]) -> list[str]:
    """Remove the folders of older formats of a cache directory and of its tiers.

    What cannot be removed, or is no such folder, stays: it is in nobody's way. Returns what was removed.
    May block on the disk.
    """
    removed: list[str] = []
    # A cache directory that can only be entered, or was deleted under us, has nothing to remove.
    with suppress(OSError):
        for name in _older_formats(cache_dir):
            removed += _remove_format(cache_dir, tier_paths, name)
    return removed


def _remove_format(cache_dir: str, tier_paths: Iterable[str], name: str) -> list[str]:
    removed: list[str] = []
    with suppress(OSError), _held_alone(os.path.join(cache_dir, name)) as alone:
        # The cache directory's last, for its lock stands for all of them.
        for folder in (*tier_paths, cache_dir) if alone else ():
            path = os.path.join(folder, name)
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
                removed.append(path)
    return removed
