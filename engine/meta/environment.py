"""LMDB environments: each opened once in a process, by however many users, and never carried over a fork.

LMDB must not be opened twice in one process, for closing one handle drops the file locks of the other. Its
handles must not be used on both sides of a fork either, and a child that closes an inherited one takes away
its parent's places in the table of readers. So a fork waits for the transactions under way, closes every
handle, and both sides open theirs anew at the next use.

LMDB's own locking goes by process ids, so all processes of a cache have to be in one PID namespace: a
second one is refused.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any, Final, Self

import lmdb

from forebay.errors import Closed, ConfigError

_READERS_MAX: Final = 1_024
_FILE_MODE: Final = 0o600
_SHARED_FILE_MODE: Final = 0o660


@dataclass(frozen=True)
class _Settings:
    map_bytes: int
    durable: bool
    shared_group: int | None
    read_only: bool


class _Handle:
    """One file of this process: closed at a fork, opened again at its next use."""

    def __init__(self, path: str, settings: _Settings) -> None:
        self.path = path
        self.users = 0
        self.env: lmdb.Environment | None = None
        self._settings = settings

    def open(self) -> lmdb.Environment:
        """Return the environment, opening it; the caller holds the gate's lock."""
        if self.env is None:
            self.env = _open(self.path, self._settings)
        return self.env

    def close(self) -> None:
        env, self.env = self.env, None
        if env is not None:
            env.close()


class _Gate:
    """Keeps transactions and forks apart, and knows the handles of this process."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.handles: dict[str, _Handle] = {}
        self._active = 0
        self._forks = 0

    def enter(self, handle: _Handle) -> lmdb.Environment:
        """Begin to use a handle, after any fork that is about to happen."""
        with self.changed:
            while self._forks:
                self.changed.wait()
            env = handle.env or handle.open()
            self._active += 1
            return env

    def leave(self) -> None:
        with self.changed:
            self._active -= 1
            if self._forks:
                self.changed.notify_all()

    def before_fork(self) -> None:
        with self.changed:
            self._forks += 1
            while self._active:
                self.changed.wait()
            for handle in self.handles.values():
                handle.close()

    def after_fork(self) -> None:
        with self.changed:
            self._forks -= 1
            self.changed.notify_all()

    def after_fork_in_child(self) -> None:
        # Threads that waited at the lock are not in the child, though it may have been handed to one of them.
        self.changed = threading.Condition()
        self._forks = 0


_gate: Final = _Gate()
os.register_at_fork(
    before=_gate.before_fork,
    after_in_parent=_gate.after_fork,
    after_in_child=_gate.after_fork_in_child,
)


class Transaction:
    """One transaction, for one thread and not longer than a call; a context manager that gives LMDB's own.

    It commits on a clean exit and aborts on an exception.
    """

    __slots__ = ("_handle", "_transaction", "_write")

    def __init__(self, handle: _Handle, write: bool) -> None:
        """Begin nothing yet."""
        self._handle = handle
        self._write = write

    def __enter__(self) -> Any:
        """Begin. Raises: ConfigError (the file cannot be opened again); lmdb.Error."""
        env = _gate.enter(self._handle)
        try:
            self._transaction = env.begin(write=self._write)
        except BaseException:
            _gate.leave()
            raise
        return self._transaction

    def __exit__(self, kind: object, *exception: object) -> None:
        """Commit or abort."""
        try:
            if kind is None:
                self._transaction.commit()
            else:
                self._transaction.abort()
        finally:
            _gate.leave()


class Environment:
    """One LMDB file; a context manager.

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
        """Open the file, or join this process's users of it, whose settings are the same."""
        settings = _Settings(map_bytes, durable, shared_group, read_only)
        real_path = os.path.realpath(path)
        with _gate.changed:
            handle = _gate.handles.get(real_path) or _Handle(real_path, settings)
            handle.open()
            handle.users += 1
            _gate.handles[real_path] = handle
        self._path: Final = real_path
        self._handle: _Handle | None = handle

    def reading(self) -> Transaction:
        """Return a transaction that reads."""
        return Transaction(self._open_handle(), write=False)

    def writing(self) -> Transaction:
        """Return a transaction that writes. Beginning it waits for other writers, in any process."""
        return Transaction(self._open_handle(), write=True)

    def last_commit(self) -> int:
        """Return the number of the last commit by any process; while it stays, nothing has changed."""
        env = _gate.enter(self._open_handle())
        try:
            return int(env.info()["last_txnid"])
        finally:
            _gate.leave()

    def close(self) -> None:
        """Leave the file, closing it after its last user; may be called twice.

        No transaction may be open.
        """
        with _gate.changed:
            handle, self._handle = self._handle, None
            if handle is None:
                return
            handle.users -= 1
            if handle.users == 0:
                del _gate.handles[self._path]
                handle.close()

    def _open_handle(self) -> _Handle:
        if self._handle is None:
            raise Closed(f"{self._path} is closed")
        return self._handle

    def __enter__(self) -> Self:
        """Return this environment."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


def _open(path: str, settings: _Settings) -> lmdb.Environment:
    try:
        env = lmdb.open(
            path,
            subdir=False,
            map_size=settings.map_bytes,
            max_readers=_READERS_MAX,
            sync=settings.durable,
            metasync=settings.durable,
            readonly=settings.read_only,
            mode=_FILE_MODE if settings.shared_group is None else _SHARED_FILE_MODE,
        )
        # Readers that were killed keep their places, and pages with them, until somebody looks.
        env.reader_check()
    except lmdb.Error as error:
        raise ConfigError(f"{path}: cannot be opened: {error}") from error
    if settings.shared_group is not None:
        _share(path, settings.shared_group)
    return env


def _share(path: str, group: int) -> None:
    """Give the group the file and its lock file; whoever did not make them leaves them as they are."""
    for name in (path, f"{path}-lock"):
        if os.stat(name).st_uid == os.geteuid():
            os.chown(name, -1, group)
            os.chmod(name, _SHARED_FILE_MODE)
