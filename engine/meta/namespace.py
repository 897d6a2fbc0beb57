"""One PID namespace at a time for a folder of LMDB files.

LMDB finds dead readers and dead writers by process and thread ids, which mean nothing in another PID
namespace, or somebody else. So every opener holds a shared lock on a file that names the namespace of those
who hold it, and whoever comes from another one is refused. The kernel drops the lock when its holders die,
in whatever way; flock is used because it belongs to the open file and so holds across fork.
"""

from __future__ import annotations

import fcntl
import os
import random
import time
from typing import Final

from forebay.errors import ConfigError

_NAME: Final = "namespace"
_ID_BYTES_MAX: Final = 64
_ATTEMPTS: Final = 100
_STEP_S: Final = 0.005


class NamespaceLock:
    """A held shared lock on a folder's namespace. Threads: any.

    Raises: ConfigError (processes of another PID namespace use the folder; names the cures).
    """

    def __init__(self, folder: str | os.PathLike[str], mode: int) -> None:
        """Take the lock, claiming the folder for this namespace if nobody holds it."""
        path = os.path.join(folder, _NAME)
        own = f"pid:{os.stat('/proc/self/ns/pid').st_ino}".encode("ascii")
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            self._take(own, os.fspath(folder))
        except BaseException:
            self.close()
            raise

    def _take(self, own: bytes, folder: str) -> None:
        for _ in range(_ATTEMPTS):
            if self._lock(fcntl.LOCK_EX):
                os.pwrite(self._descriptor, own.ljust(_ID_BYTES_MAX, b"\0"), 0)
            # Changing a lock gives it up for a moment, in which another may claim the folder: look after it.
            if self._lock(fcntl.LOCK_SH) and self._holder() == own:
                return
            self._lock(fcntl.LOCK_UN)
            time.sleep(random.uniform(0, 2 * _STEP_S))
        raise ConfigError(
            f"{folder}: in use by processes of another PID namespace; run all of them in one "
            "(docker run --pid, shareProcessNamespace in a pod), or give each a cache directory of its own"
        )

    def _lock(self, kind: int) -> bool:
        try:
            fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _holder(self) -> bytes:
        return os.pread(self._descriptor, _ID_BYTES_MAX, 0).rstrip(b"\0")

    def close(self) -> None:
        """Give the lock up; may be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
