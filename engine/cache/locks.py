"""Locks on files, or bytes of them, that the kernel gives back however their holder dies.

In any PID namespace, and to be asked about by anybody: they belong to the open file, not to a process.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from forebay.meta import HeldLock

# struct flock of Linux on 64-bit machines: type, whence, start, length, pid (0 for locks of open files).
_FLOCK: Final = struct.Struct("hhqqi4x")
_WHOLE_FILE: Final = (0, 0)


def try_lock(descriptor: int, *, shared: bool = False) -> HeldLock | None:
    """Lock an open file, which is the lock's from now on; None: another has it, and the file is closed.

    Raises: OSError.
    """
    return _lock(descriptor, fcntl.F_OFD_SETLK, fcntl.F_RDLCK if shared else fcntl.F_WRLCK)


def wait_lock(descriptor: int) -> HeldLock:
    """Lock an open file, which is the lock's from now on, waiting for as long as it takes; interruptible.

    Raises: OSError.
    """
    lock = _lock(descriptor, fcntl.F_OFD_SETLKW, fcntl.F_WRLCK)
    assert lock is not None
    return lock


def is_locked(descriptor: int) -> bool:
    """Say whether somebody has an open file locked, and close it."""
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK, _WHOLE_FILE))
    finally:
        os.close(descriptor)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


@contextmanager
def holding_byte(file: HeldLock, place: int) -> Iterator[None]:
    """Hold one byte of a file against other open files, waiting for as long as it takes; interruptible.

    The lock is none of threads: the caller sees to it that one at a time holds a place.
    """
    try:
        fcntl.fcntl(file.descriptor, fcntl.F_OFD_SETLKW, _request(fcntl.F_WRLCK, (place, 1)))
        yield
    finally:
        fcntl.fcntl(file.descriptor, fcntl.F_OFD_SETLK, _request(fcntl.F_UNLCK, (place, 1)))


def _lock(descriptor: int, command: int, kind: int) -> HeldLock | None:
    try:
        fcntl.fcntl(descriptor, command, _request(kind, _WHOLE_FILE))
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return HeldLock(descriptor)


def _request(kind: int, span: tuple[int, int]) -> bytes:
    start, length = span
    return _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)
