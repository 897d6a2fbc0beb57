"""Group commit: what threads of a process have to write at the same time is one transaction.

Writers of a host take turns, and a turn is long where the processors are busy: a thread that lets others have
the interpreter in the middle of its transaction may wait for it. So threads do not queue for a turn each. One
of them leads; what others bring until it has its turn goes with it, what they bring later with the next.

    one that leads                            those that follow
    G1 nobody leads?                          bring a write; somebody leads: wait
    G2 wait for the turn                      (bring theirs)
    G3 take all that was brought until now    (bring theirs, for the next)
    G4 run it, one after the other; commit
    G5 tell whose it was; lead no more        done; the first whose write was not taken leads, from G2

Each write is run whole before the next begins, as if it had a transaction of its own. If one of them fails,
or the commit does, nothing of the group was written: then each thread does its own alone, and has its own
error. If the turn never came, it came for none of those who waited. A leader that is interrupted leaves to
the others what they brought. So a write may be run twice, and by another thread than the one it belongs to.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from forebay.errors import StoreBusy
from forebay.meta.changes import Changes
from forebay.meta.environment import Environment
from forebay.meta.patience import Patience
from forebay.meta.write import Write

_groups: Final[weakref.WeakSet[GroupCommit]] = weakref.WeakSet()


class _Brought:
    """What one thread has to write, and what came of it."""

    __slots__ = ("action", "busy", "dataset_id", "is_over", "told", "write")

    def __init__(self, dataset_id: int, action: Callable[[Write], object]) -> None:
        self.dataset_id = dataset_id
        self.action = action
        # Told of, whatever it was: if neither of the other two says more, it is to be done alone.
        self.is_over = False
        self.write: Write | None = None
        self.busy: StoreBusy | None = None
        # Locked by who waits, and unlocked to wake it: unlike a condition's wait, this leaves no lock in an
        # unknown state when it is interrupted.
        self.told: threading.Lock | None = None

    def wake(self) -> None:
        """Wake who waits, or will; the caller holds the group's lock."""
        if self.told is not None and self.told.locked():
            self.told.release()

    def run(self, transaction: Any, changes: Changes) -> Write:
        write = Write(transaction, self.dataset_id, changes)
        self.action(write)
        write.finish()
        return write


class GroupCommit:
    """Writes of the threads of one process. Threads: any that is in no transaction of the environment."""

    def __init__(self, environment: Environment, changes: Changes, patience_s: float) -> None:
        """Use an environment, with that patience, and hastily after a wait in vain."""
        self._environment: Final = environment
        self._changes: Final = changes
        self._patience_s: Final = patience_s
        self._begin()
        _groups.add(self)

    def _begin(self) -> None:
        """Begin with nothing; in a child of a fork, too, for it has none of the threads that wait."""
        # An RLock, for a finalizer may come upon it at any moment.
        self._lock = threading.RLock()
        self._brought: list[_Brought] = []
        self._leader: _Brought | None = None

    def write(self, dataset_id: int, action: Callable[[Write], object]) -> Write:
        """Run an action in a transaction that is then committed; return what it did.

        The action may be run more than once, each time from its beginning, and by any thread. Raises:
        StoreBusy, lmdb.Error, as Environment.writing; what the action raises.
        """
        own = _Brought(dataset_id, action)
        try:
            if self._must_lead(own):
                self._lead(own)
        except BaseException:
            try:
                self._leave(own)
            except BaseException:
                # Interrupted, perhaps before it was done.
                self._leave(own)
                raise
            raise
        if own.busy is not None:
            raise StoreBusy(*own.busy.args)
        if own.write is not None:
            return own.write
        with self._environment.writing(self._patience_s, is_hasty=True) as transaction:
            return own.run(transaction, self._changes)

    def _must_lead(self, own: _Brought) -> bool:
        """Bring a write; return True at once or later if this thread is to lead, False when it is over."""
        with self._lock:
            if self._leads(own):
                return True
            told = own.told = threading.Lock()
            told.acquire()
            self._brought.append(own)
        # Whoever leads tells when its own patience is over; unless this is the interpreter's end, or an
        # interrupt's handler, and it never comes to that.
        patience = Patience(self._patience_s, self._environment.last_commit)
        while True:
            left_s = patience.left_s()
            if left_s > 0:
                told.acquire(timeout=left_s)
            with self._lock:
                if own.is_over:
                    return False
                if self._leads(own):
                    return True
            if left_s <= 0:
                raise StoreBusy(f"another thread has been writing metadata for {patience.still_s():.1f} s")

    def _leads(self, own: _Brought) -> bool:
        """Have this one lead if none does; the caller holds the lock."""
        if self._leader is None:
            self._leader = own
        return self._leader is own

    def _lead(self, own: _Brought) -> None:
        taken: list[_Brought] = []
        writes: list[Write] = []
        busy: StoreBusy | None = None
        try:
            with self._environment.writing(self._patience_s, is_hasty=True) as transaction:
                taken = self._take(own)
                writes = [each.run(transaction, self._changes) for each in taken]
        except StoreBusy as error:
            taken, busy = self._take(own), error
        except Exception:
            taken, writes = taken or self._take(own), []
            if len(taken) == 1:
                raise
        self._leave(own, taken, writes, busy)

    def _take(self, own: _Brought) -> list[_Brought]:
        if not self._brought:
            # Whoever comes at this moment goes with the next.
            return [own]
        with self._lock:
            return [own, *(each for each in self._brought if each is not own)]

    def _leave(
        self,
        own: _Brought,
        taken: Sequence[_Brought] = (),
        writes: Sequence[Write] = (),
        busy: StoreBusy | None = None,
    ) -> None:
        """Tell what came of those that were taken, and bring and lead no more; may be called twice."""
        with self._lock:
            for index, each in enumerate(taken):
                each.busy = busy
                each.write = writes[index] if writes else None
                each.is_over = True
                each.wake()
            if self._leader is own:
                self._leader = None
            if self._brought:
                self._brought = [each for each in self._brought if not (each.is_over or each is own)]
                if self._leader is None and self._brought:
                    self._brought[0].wake()


def _begin_in_child() -> None:
    for group in list(_groups):
        group._begin()


os.register_at_fork(after_in_child=_begin_in_child)
