"""What the kernel was told for long, and how it is made to forget that.

Below a name that it forgets it forgets everything, so the names at the root are enough: these are kept, so
many and no more. A name that finds no room is told for so short that nobody need come back to it.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

from forebay.cache import Attached, Nodes

_NAMES_MAX: Final = 65_536
# For names that are not kept.
_SHORT_S: Final = 1.0


class Outdated:
    """Follows what the kernel was told of names at the root. Threads: any."""

    def __init__(self, nodes: Nodes) -> None:
        """Follow these nodes: nothing was told so far."""
        self._nodes: Final = nodes
        self._state = nodes.state()
        self._lock: Final = Lock()
        self._names: set[bytes] = set()
        self._again: list[bytes] = []

    def told(self, name: bytes, timeout_s: float) -> float:
        """Keep a name at the root that the kernel is about to be told of; return for how long it is told."""
        if name in self._names or timeout_s <= _SHORT_S:
            return timeout_s
        with self._lock:
            if len(self._names) >= _NAMES_MAX:
                return _SHORT_S
            self._names.add(name)
        return timeout_s

    def take(self) -> list[bytes]:
        """Return the names that are to be forgotten, if something became different since this was asked."""
        attached = self._nodes.attached_now()
        state = self._nodes.state()
        before, self._state = self._state, state
        # An answer that was under way may have come behind its name's being forgotten: once more, then.
        again, self._again = self._again, []
        if state != before and _may_last(attached):
            with self._lock:
                names, self._names = self._names, set()
            self._again = list(names)
        return again + self._again


def _may_last(attached: Attached) -> bool:
    """Say whether something may hold for ever; the rest is asked for again when its time is over."""
    return attached.max_age("") is None or bool(attached.rules.policies)
