"""LMDB environments: each opened once in a process, by however many users, and never carried over a fork.

LMDB's handles must not be opened twice in one process, nor be used on both sides of a fork; and locks on a
description that a child had inherited would outlive their holder. So a fork waits for the transactions
under way, closes every handle, and both sides open theirs anew at the next use.

LMDB's own locks are off; what takes their place, in all PID namespaces, is in guard.py.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import lmdb

from forebay.durable import sync_folder
from forebay.errors import Closed, ConfigError, StoreBusy
from forebay.meta.guard import Guard

_PATIENCE_S: Final = 10.0
_STEP_S: Final = 0.001
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
        self.opened: tuple[lmdb.Environment, Guard] | None = None
        self._settings = settings

    def open(self) -> tuple[lmdb.Environment, Guard]:
        """Return the environment and its guard, opening them; the caller holds the gate's lock."""
        if self.opened is None:
            self.opened = _open(self.path, self._settings)
        return self.opened

    def close(self) -> None:
        opened, self.opened = self.opened, None
        if opened is not None:
            env, guard = opened
            env.close()
            guard.close()


class _Gate:
    """Keeps transactions and forks apart, and knows the handles of this process."""

    def __init__(self) -> None:
        self._renew_lock()
        self.handles: dict[str, _Handle] = {}
        # Uses under way, and of which handle each is.
        self._active: Final[dict[object, _Handle]] = {}
        self._forks = 0
        self._closing = 0

    def enter(self, handle: _Handle, user: object) -> tuple[lmdb.Environment, Guard]:
        """Begin to use a handle, after any fork that is about to happen; user stands for this one use.

        Raises: Closed.
        """
        with self.lock:
            while self._forks:
                self._changed.wait()
            if handle.users == 0:
                raise Closed(f"{handle.path} is closed")
            opened = handle.opened or handle.open()
            self._active[user] = handle
            return opened

    def leave(self, user: object) -> None:
        """End a use, if it has begun; may be called twice."""
        try:
            self._leave(user)
        except BaseException:
            # Interrupted, perhaps before it was done.
            self._leave(user)
            raise

    def _leave(self, user: object) -> None:
        with self.lock:
            self._active.pop(user, None)
            if self._forks or self._closing:
                self._changed.notify_all()

    def wait_for_users(self, handle: _Handle) -> None:
        """Wait until nobody is at a use of the handle; the caller holds the lock, and is at none itself."""
        self._closing += 1
        try:
            while handle in self._active.values():
                self._changed.wait()
        finally:
            self._closing -= 1

    def before_fork(self) -> None:
        with self.lock:
            self._forks += 1
            while self._active:
                self._changed.wait()
            for handle in self.handles.values():
                handle.close()

    def after_fork(self) -> None:
        with self.lock:
            self._forks -= 1
            self._changed.notify_all()

    def after_fork_in_child(self) -> None:
        # Threads that waited at the lock are not in the child, though it may have been handed to one of them.
        self._renew_lock()
        self._forks = self._closing = 0

    def _renew_lock(self) -> None:
        self.lock = threading.Lock()
        self._changed = threading.Condition(self.lock)


_gate: Final = _Gate()
os.register_at_fork(
    before=_gate.before_fork,
    after_in_parent=_gate.after_fork,
    after_in_child=_gate.after_fork_in_child,
)


class Transaction:
    """One transaction, for one thread and not longer than a call; a context manager that gives LMDB's own.

    It commits on a clean exit and aborts on an exception, which may be an interrupt at any moment.
    """

    __slots__ = ("_guard", "_handle", "_is_hasty", "_is_over", "_patience_s", "_pin", "_transaction", "_user")

    def __init__(self, handle: _Handle, patience_s: float | None, *, is_hasty: bool = False) -> None:
        """Begin nothing yet; patience_s is for one that writes, None makes it one that reads."""
        self._handle = handle
        self._patience_s = patience_s
        self._is_hasty = is_hasty
        # For this one transaction everywhere, so that giving back twice gives back nobody else's.
        self._user = object()
        self._guard: Guard | None = None
        self._transaction: Any = None
        self._is_over = True

    def __enter__(self) -> Any:
        """Begin. Raises: ConfigError (the file cannot be opened again); StoreBusy; lmdb.Error."""
        self._is_over = False
        try:
            _, self._guard = _gate.enter(self._handle, self._user)
            if self._patience_s is None:
                self._transaction, self._pin = self._guard.begin_read(self._user)
            else:
                self._transaction = self._guard.begin_write(
                    self._patience_s, self._user, is_hasty=self._is_hasty
                )
        except BaseException:
            self._give_back()
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
            self._give_back()

    def __del__(self) -> None:
        """End what an interrupt kept from ending: it may come before the first line of ``__exit__``."""
        # Interrupted in the first line of ``__init__`` it has no attributes.
        if not getattr(self, "_is_over", True):
            if self._transaction is not None:
                self._transaction.abort()
            self._give_back()

    def _give_back(self) -> None:
        try:
            self._end()
        except BaseException:
            # Interrupted, perhaps before it was done.
            self._end()
            raise

    def _end(self) -> None:
        """End the transaction; may be called twice."""
        if self._transaction is not None and self._guard is not None:
            if self._patience_s is None:
                self._guard.end_read(self._pin, self._user)
            else:
                self._guard.end_write(self._user)
        _gate.leave(self._user)
        self._is_over = True


class _Use:
    """A use of a handle that is no transaction; a context manager, for a moment."""

    __slots__ = ("_handle", "_is_over", "_user")

    def __init__(self, handle: _Handle) -> None:
        self._handle = handle
        self._user = object()
        self._is_over = True

    def __enter__(self) -> lmdb.Environment:
        self._is_over = False
        return _gate.enter(self._handle, self._user)[0]

    def __exit__(self, *exception: object) -> None:
        _gate.leave(self._user)
        self._is_over = True

    def __del__(self) -> None:
        """End what an interrupt kept from ending: it may come before the first line of ``__exit__``."""
        if not getattr(self, "_is_over", True):
            _gate.leave(self._user)


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
        with _gate.lock:
            handle = _gate.handles.get(real_path) or _Handle(real_path, settings)
            handle.open()
            handle.users += 1
            _gate.handles[real_path] = handle
        self.path: Final = real_path
        self._handle: _Handle | None = handle

    def reading(self) -> Transaction:
        """Return a transaction that reads."""
        return Transaction(self._open_handle(), None)

    def writing(self, patience_s: float = _PATIENCE_S, *, is_hasty: bool = False) -> Transaction:
        """Return a transaction that writes.

        Beginning it waits for other writers, in any process, and for readers that began before the last
        commit; when nobody has committed for patience_s it raises StoreBusy. is_hasty is for who can do
        without: 20 ms are enough then, while nobody has committed since a wait was in vain. The thread must
        not be reading.
        """
        return Transaction(self._open_handle(), patience_s, is_hasty=is_hasty)

    def last_commit(self) -> int:
        """Return the number of the last commit by any process; while it stays, nothing has changed."""
        with _Use(self._open_handle()) as env:
            return int(env.info()["last_txnid"])

    def copy_to(self, descriptor: int) -> None:
        """Write a compact copy of the last commit to an empty file that is open for writing."""
        handle = self._open_handle()
        with Transaction(handle, None) as transaction:
            # In a transaction, so that no fork closes it meanwhile.
            env, _ = handle.opened or handle.open()
            env.copyfd(descriptor, compact=True, txn=transaction)

    def close(self) -> None:
        """Leave the file, closing it after its last user; may be called twice.

        The thread has no transaction open; those of other threads are waited for.
        """
        with _gate.lock:
            handle, self._handle = self._handle, None
            if handle is None:
                return
            handle.users -= 1
            if handle.users == 0:
                _gate.wait_for_users(handle)
            # Somebody may have opened the file again meanwhile, and closed it as well.
            if handle.users == 0 and _gate.handles.get(self.path) is handle:
                del _gate.handles[self.path]
                handle.close()

    def _open_handle(self) -> _Handle:
        if self._handle is None:
            raise Closed(f"{self.path} is closed")
        return self._handle

    def __enter__(self) -> Self:
        """Return this environment."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


def _open(path: str, settings: _Settings) -> tuple[lmdb.Environment, Guard]:
    try:
        if not settings.read_only:
            _make(path, settings)
        # An empty one LMDB would fill, and two that do so would overwrite each other.
        if os.path.getsize(path) == 0:
            raise ConfigError(f"{path}: cannot be opened: the file is empty")
        env = _open_unlocked(path, settings)
        try:
            return env, Guard(path, env, read_only=settings.read_only)
        except BaseException:
            env.close()
            raise
    except (lmdb.Error, OSError) as error:
        raise ConfigError(f"{path}: cannot be opened: {error}") from error


def _open_unlocked(path: str, settings: _Settings) -> lmdb.Environment:
    return lmdb.open(
        path,
        subdir=False,
        lock=False,
        map_size=settings.map_bytes,
        sync=settings.durable,
        metasync=settings.durable,
        readonly=settings.read_only,
        mode=_FILE_MODE if settings.shared_group is None else _SHARED_FILE_MODE,
    )


def _make(path: str, settings: _Settings) -> None:
    """Make the file if it is missing: as a whole or not at all, and by one process at a time."""
    if not os.path.exists(path):
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _lock_folder(folder, path)
            if not os.path.exists(path):
                _make_alone(path, settings)
        finally:
            os.close(folder)
    if settings.shared_group is not None:
        _share(path, settings.shared_group)


def _lock_folder(folder: int, path: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreBusy(f"another process has been making it for {_PATIENCE_S} s") from None
            time.sleep(_STEP_S)
        else:
            return


def _make_alone(path: str, settings: _Settings) -> None:
    new = Path(f"{path}.new")
    new.unlink(missing_ok=True)
    try:
        _open_unlocked(str(new), settings).close()
        if settings.shared_group is not None:
            _share(str(new), settings.shared_group)
        new.rename(path)
        if settings.durable:
            sync_folder(new.parent)
    finally:
        new.unlink(missing_ok=True)


def _share(path: str, group: int) -> None:
    """Give the group the file; whoever did not make it leaves it as it is."""
    if os.stat(path).st_uid == os.geteuid():
        os.chown(path, -1, group)
        os.chmod(path, _SHARED_FILE_MODE)
