"""LMDB environments, each opened once in a process however many caches use it.

LMDB must not be opened twice in one process, for closing one handle drops the file locks of the other, and
its handles do not survive fork. So a process has one handle for each file, counted, and a child begins with
none; what it inherited is neither used nor closed. LMDB's own locking goes by process ids, so all processes
of a cache have to be in one PID namespace: a second one is refused.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Final, Self

import lmdb

from forebay.errors import ConfigError

_READERS_MAX: Final = 1_024
_FILE_MODE: Final = 0o600
_SHARED_FILE_MODE: Final = 0o660


@dataclass
class _Handle:
    env: lmdb.Environment
    users: int


_lock = threading.Lock()
_handles: dict[str, _Handle] = {}
_inherited: list[dict[str, _Handle]] = []


def _forget_in_child() -> None:
    """Begin anew after fork.

    Keeping the parent's handles referenced keeps their destructors from running here.
    """
    global _lock, _handles
    _lock = threading.Lock()
    _inherited.append(_handles)
    _handles = {}


os.register_at_fork(after_in_child=_forget_in_child)


class Environment:
    """One LMDB file; a context manager. For the process that made it.

    durable: each commit is on disk when it returns; else a crash of the machine may lose or damage the
    file, and the caller keeps nothing in it that outlives a boot. map_bytes is address space, not disk
    space. shared_group gives the group's members the same rights. Threads: any.
    Raises: ConfigError (cannot be opened; says why and what to do).
    """

    def __init__(
        self,
        path: str,
        *,
        map_bytes: int,
        durable: bool,
        shared_group: int | None = None,
        read_only: bool = False,
    ) -> None:
        """Open the file, or join this process's users of it."""
        self._path: Final = os.path.realpath(path)
        with _lock:
            handle = _handles.get(self._path)
            if handle is None:
                handle = _Handle(_open(self._path, map_bytes, durable, shared_group, read_only), 0)
                _handles[self._path] = handle
            handle.users += 1
        self.env: Final = handle.env
        self._handle: _Handle | None = handle

    def last_commit(self) -> int:
        """Return the number of the last commit by any process; while it stays, nothing has changed."""
        return int(self.env.info()["last_txnid"])

    def close(self) -> None:
        """Leave the file, closing it after its last user; may be called twice.

        No transaction may be open.
        """
        with _lock:
            handle, self._handle = self._handle, None
            if handle is None or _handles.get(self._path) is not handle:
                return
            handle.users -= 1
            if handle.users == 0:
                del _handles[self._path]
                handle.env.close()

    def __enter__(self) -> Self:
        """Return this environment."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


def _open(
    path: str, map_bytes: int, durable: bool, shared_group: int | None, read_only: bool
) -> lmdb.Environment:
    try:
        env = lmdb.open(
            path,
            subdir=False,
            map_size=map_bytes,
            max_readers=_READERS_MAX,
            sync=durable,
            metasync=durable,
            readonly=read_only,
            mode=_FILE_MODE if shared_group is None else _SHARED_FILE_MODE,
        )
        # Readers that were killed keep their places, and pages with them, until somebody looks.
        env.reader_check()
    except lmdb.Error as error:
        raise ConfigError(f"{path}: cannot be opened: {error}{_advice(error)}") from error
    if shared_group is not None:
        _share(path, shared_group)
    return env


def _advice(error: lmdb.Error) -> str:
    if isinstance(error, lmdb.LockError) or "temporarily unavailable" in str(error):
        return (
            "; another process has it open in a different PID namespace: run both in one "
            "(docker --pid, shareProcessNamespace in a pod) or give each a cache directory of its own"
        )
    return ""


def _share(path: str, group: int) -> None:
    """Give the group the file and its lock file; whoever did not make them leaves them as they are."""
    for name in (path, f"{path}-lock"):
        if os.stat(name).st_uid == os.geteuid():
            os.chown(name, -1, group)
            os.chmod(name, _SHARED_FILE_MODE)
