"""Locks that die with their process, however it ends, and that no child of a fork keeps alive."""

from __future__ import annotations

import os
import weakref
from typing import Final, Self

_held: Final[weakref.WeakSet[HeldLock]] = weakref.WeakSet()


class HeldLock:
    """A lock of the kernel's, held through an open file: it is given back however the holder dies.

    A child of a fork shares the open file and closes it at once, for a DataLoader's worker must not keep
    alive what its parent held.
    """

    def __init__(self, descriptor: int) -> None:
        """Own a descriptor that holds the lock."""
        self._descriptor = descriptor
        _held.add(self)

    @property
    def descriptor(self) -> int:
        """The open file, -1 once it is given back."""
        return self._descriptor

    def release(self) -> None:
        """Give the lock back; may be called twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        """Return this lock."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Give the lock back."""
        self.release()


def _release_in_child() -> None:
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_release_in_child)
