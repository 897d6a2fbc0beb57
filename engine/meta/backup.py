"""The catalog's backup: a copy of the whole file beside it, made after each change of datasets and schedules.

It takes its name in one step, so that there is always one that is whole. It is never read here: putting it
in the place of a damaged catalog is somebody's decision, for what was attached since is lost by it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from typing import Final

import lmdb

from forebay.errors import StoreBusy
from forebay.meta.environment import Environment

_log = logging.getLogger(__name__)

BACKUP_SUFFIX: Final = ".backup"

_NEW_SUFFIX: Final = ".backup-new"
_PATIENCE_S: Final = 10.0
_STEP_S: Final = 0.01


def write_backup(environment: Environment, path: str) -> None:
    """Copy the environment of the file at path to the file's backup.

    A backup that cannot be written is told of, and no error: the catalog itself is written.
    """
    try:
        descriptor = _open_new(path)
        try:
            os.ftruncate(descriptor, 0)
            environment.copy_to(descriptor)
            os.fsync(descriptor)
            os.rename(path + _NEW_SUFFIX, path + BACKUP_SUFFIX)
        finally:
            os.close(descriptor)
    except (OSError, lmdb.Error) as error:
        _log.warning("%s%s: not written: %s", path, BACKUP_SUFFIX, error)


def _open_new(path: str) -> int:
    """Open the file that becomes the backup, with the catalog's rights, and lock it.

    Processes take turns, each after its own commit, so that the last to name its copy has copied all. What
    a killed one left is used again. Raises: OSError; StoreBusy.
    """
    deadline = time.monotonic() + _PATIENCE_S
    name, catalog = path + _NEW_SUFFIX, os.stat(path)
    while True:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            status = os.fstat(descriptor)
            if _lock(descriptor) and _is_named(status, name):
                if status.st_uid == os.geteuid():
                    os.fchown(descriptor, -1, catalog.st_gid)
                    os.fchmod(descriptor, catalog.st_mode & 0o777)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if time.monotonic() > deadline:
            raise StoreBusy(f"another process has been writing it for {_PATIENCE_S} s")
        time.sleep(_STEP_S)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_named(status: os.stat_result, name: str) -> bool:
    """Say whether a file still has its name: who had it locked before has renamed it."""
    try:
        return os.path.samestat(status, os.stat(name))
    except FileNotFoundError:
        return False
