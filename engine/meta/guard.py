"""Readers and writers of one LMDB file that is opened without LMDB's own locks (`lock=False`).

LMDB's locks go by process and thread ids, which collide between PID namespaces. Here every decision is a
lock of the kernel's on a byte range of the LMDB file itself, held by an open file description: it works in
any namespace, goes when its holder dies however that happens, and needs no table that could be full, be left
behind or be separated from the file. LMDB never locks the file's bytes itself. Byte n stands for commit n.

What LMDB does without its table of readers (mdb.c: mdb_find_oldest, mdb_page_alloc, mdb_env_write_meta):
the transaction that makes commit w takes for new data the pages that commits up to w - 2 have freed. A page
that commit f freed is part of no snapshot from f on, so w overwrites pages of the snapshots up to w - 3. It
overwrites the meta page of w - 2, since there are two and they take turns. Its own meta page is one write,
the number last, and from then on whoever begins gets commit w, though w's writer has not returned yet.

So whoever makes commit w lets nobody hold a snapshot but w - 1, from before its first change to its end:

    reader                                      writer of commit w
    R1 lock byte c, shared                      W1 lock the writers' byte: one writer at a time
    R2 begin; the snapshot's number is c?       W2 begin; w is the last commit's number and one
       no: give back, again with that number    W3 lock w and all above, exclusive: w is not complete
    R3 read                                     W4 lock 0 to w - 2, exclusive: waits for older readers
    R4 end, unlock                              W5 change, commit
                                                W6 unlock everything

R1 succeeds while a writer is between W4 and W6 only if c = w - 1. So at R2 the snapshot's meta page was
complete before R1 (W3), neither it nor its pages change until R4 (W4), and only one commit can come in
between: the next writer waits at W4. Readers wait for nobody. A writer waits for readers that began before
the last commit, so a reader that was stopped lets one more commit pass and then stops all writing: a writer
gives up after a time in which nobody commits, for it cannot tell LMDB to spare the pages.

One interval is left: commit w is in the meta page, and its writer has yet to come to W6. It is short, unless
the disk is waited for, the interpreter is busy or the writer is stopped. A reader then gets w at R2 and may
not lock w. It waits a millisecond, by when the meta page's one short write is seen as a whole, and reads w
while it holds byte w - 1, which keeps whoever comes after w out just as well.

A killed writer's commit is made or not made, as its meta page says. Crashes of the machine are not covered.
"""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from typing import Any, Final

import lmdb

from forebay.errors import StoreBusy
from forebay.meta.patience import Patience

# Bound here, for a read passes them twice.
_fcntl: Final = fcntl.fcntl
_pack: Final = struct.Struct("hhqqi4x").pack  # struct flock: type, whence, start, length, pid
_OFD_SETLK: Final = fcntl.F_OFD_SETLK
_SHARE: Final = fcntl.F_RDLCK
_EXCLUDE: Final = fcntl.F_WRLCK
_UNLOCK: Final = fcntl.F_UNLCK

# Above every commit's byte.
_WRITER: Final = 1 << 62
_QUEUE: Final = _WRITER + 1

_SETTLED_S: Final = 0.001
_READER_STEP_S: Final = 0.000_1
_STEP_S_MIN: Final = 0.000_05
_STEP_S_MAX: Final = 0.002
# Among threads, who are woken: how often to look whether other processes commit.
_THREAD_STEP_S: Final = 0.05
# Of those who can do without, while nobody has committed since a wait that was in vain.
_HASTY_S: Final = 0.02


class Guard:
    """Begins and ends the transactions of one environment of this process.

    The caller opened env with lock=False, begins no transaction of it elsewhere, and closes the guard
    before a fork, when no transaction is open. Threads: any; a thread that reads begins no writing.
    """

    def __init__(self, path: str, env: lmdb.Environment, *, read_only: bool = False) -> None:
        """Use the file at path, which env has open. Raises: OSError."""
        self._path: Final = path
        self._env: Any = env
        self._read_only: Final = read_only
        self._newest = 0
        self._pins: Final[dict[int, set[object]]] = {}  # commit -> who holds its byte
        self._pins_lock: Final = threading.Lock()
        self._writer: object | None = None
        self._lock: Final = threading.RLock()
        self._writer_changed: Final = threading.Condition(self._lock)
        # The last commit when a writer gave up.
        self._vain_commit: int | None = None
        # Two descriptions: one's own locks never conflict, and our writers have to wait for our readers.
        self._readers = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._writers = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        except BaseException:
            os.close(self._readers)
            raise

    def close(self) -> None:
        """Close; no transaction may be open."""
        os.close(self._readers)
        os.close(self._writers)

    def begin_read(self, holder: object) -> tuple[Any, int]:
        """Return a transaction on the last commit, and the pin to give back when it has ended.

        The holder stands for this one transaction.
        """
        commit = self._newest
        settled_at: float | None = None
        while True:
            transaction = self._begin_pinned(commit, commit, holder)
            if transaction is not None:
                self._newest = commit
                return transaction, commit
            newest = self._last_commit()
            if newest != commit:
                commit, settled_at = newest, None
                continue
            now = time.monotonic()
            settled_at = settled_at or now + _SETTLED_S
            if now >= settled_at:
                transaction = self._begin_pinned(commit - 1, commit, holder)
                if transaction is not None:
                    return transaction, commit - 1
            time.sleep(_READER_STEP_S)

    def end_read(self, pin: int, holder: object) -> None:
        """Give the pin back, after its transaction has ended; may be called twice."""
        try:
            self._unpin(pin, holder)
        except BaseException:
            # Interrupted, perhaps before it was done.
            self._unpin(pin, holder)
            raise

    def begin_write(self, patience_s: float, holder: object, *, is_hasty: bool = False) -> Any:
        """Return a transaction that writes, once there is no other writer and nobody reads old pages.

        is_hasty: 20 ms of patience are enough while nobody has committed since a wait was in vain.
        Raises: StoreBusy (for patience_s nobody has committed: another writer, or a reader in a transaction,
        goes on or is stopped); lmdb.ReadonlyError.
        """
        if self._read_only:
            raise lmdb.ReadonlyError(f"{self._path} was opened for reading")
        if is_hasty and self._vain_commit is not None and self._vain_commit == self._last_commit():
            patience_s = _HASTY_S
        patience = Patience(patience_s, self._last_commit)
        try:
            with self._lock:
                while self._writer is not None:
                    step_s = self._left_s(patience, "another thread has been writing")
                    self._writer_changed.wait(min(step_s, _THREAD_STEP_S))
                self._writer = holder
            self._become_writer(patience)
            return self._begin_excluding(patience)
        except BaseException:
            self.end_write(holder)
            raise

    def end_write(self, holder: object) -> None:
        """Let others write, after the transaction has ended; may be called twice."""
        try:
            self._give_way(holder)
        except BaseException:
            # Interrupted, perhaps before it was done.
            self._give_way(holder)
            raise

    def _give_way(self, holder: object) -> None:
        with self._lock:
            if self._writer is holder:
                _request(self._writers, _UNLOCK, 0, 0)
                self._writer = None
                self._writer_changed.notify()

    def _begin_pinned(self, pin: int, commit: int, holder: object) -> Any:
        """Begin while the pin's byte is held, None if it cannot be or the last commit is another one."""
        try:
            if not self._pin(pin, holder):
                return None
            transaction = self._env.begin()
            if transaction.id() == commit:
                return transaction
            transaction.abort()
            self.end_read(pin, holder)
        except BaseException:
            self.end_read(pin, holder)
            raise
        return None

    def _pin(self, pin: int, holder: object) -> bool:
        with self._pins_lock:
            holders = self._pins.get(pin)
            if not holders:
                if not _request(self._readers, _SHARE, pin, 1):
                    return False
                holders = self._pins.setdefault(pin, set())
            holders.add(holder)
            return True

    def _unpin(self, pin: int, holder: object) -> None:
        """Let go of the byte if nobody else holds it, whether or not it was noted that the holder does."""
        with self._pins_lock:
            holders = self._pins.get(pin)
            if holders:
                holders.discard(holder)
            if not holders:
                _request(self._readers, _UNLOCK, pin, 1)
                self._pins.pop(pin, None)

    def _become_writer(self, patience: Patience) -> None:
        """Take the writers' byte; first the queue's, so that who writes again and again lets others in."""
        self._wait(_QUEUE, 1, patience, "other processes have been writing")
        self._wait(_WRITER, 1, patience, "another process has been writing")
        _request(self._writers, _UNLOCK, _QUEUE, 1)

    def _begin_excluding(self, patience: Patience) -> Any:
        transaction = self._env.begin(write=True)
        try:
            commit = int(transaction.id())
            readers = "a process has been in a read transaction, or is stopped in one,"
            self._wait(commit, _WRITER - commit, patience, readers)
            if commit > 1:
                self._wait(0, commit - 1, patience, readers)
        except BaseException:
            transaction.abort()
            raise
        return transaction

    def _wait(self, start: int, length: int, patience: Patience, cause: str) -> None:
        step_s = _STEP_S_MIN
        while not _request(self._writers, _EXCLUDE, start, length):
            time.sleep(min(step_s, self._left_s(patience, cause)))
            step_s = min(2 * step_s, _STEP_S_MAX)

    def _left_s(self, patience: Patience, cause: str) -> float:
        """Return how long to wait on. Raises: StoreBusy (no longer)."""
        left_s = patience.left_s()
        if left_s <= 0:
            self._vain_commit = self._last_commit()
            raise StoreBusy(f"{self._path}: not written: {cause} for {patience.still_s():.1f} s")
        return left_s

    def _last_commit(self) -> int:
        return int(self._env.info()["last_txnid"])


def _request(descriptor: int, kind: int, start: int, length: int) -> bool:
    """Lock or unlock a range (length 0: to the end) without waiting; False if somebody's lock conflicts."""
    try:
        _fcntl(descriptor, _OFD_SETLK, _pack(kind, 0, start, length, 0))
    except BlockingIOError:
        return False
    return True
