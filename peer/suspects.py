"""Members that failed lately: nobody asks them for data until a probe has found them well again.

What the view says of a member comes a few seconds late. A process that has seen a member fail skips it from
then on, and pays for it once; probes go out with growing pauses, beside the reads and never before them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

PROBE_AFTER_S: Final = 0.25
PROBE_AFTER_S_MAX: Final = 8.0
DEFER_S: Final = 1.0

# So many requests, one after the other, in which a peer was silent while another answered.
_SLOW_MAX: Final = 3


@dataclass(slots=True)
class _Suspect:
    probe_s: float
    pause_s: float


class Suspects:
    """Who is skipped, and when it is probed. Threads: any."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        """Suspect nobody."""
        self._now_s: Final = now_s
        self._lock: Final = threading.Lock()
        self._suspects: Final[dict[str, _Suspect]] = {}
        self._slow: Final[dict[str, int]] = {}
        # Replaced as a whole, so that readers take no lock.
        self._ids: frozenset[str] = frozenset()

    @property
    def ids(self) -> frozenset[str]:
        """The ids of those to skip."""
        return self._ids

    def failed(self, member_id: str) -> bool:
        """Suspect a member from now on, or longer; return whether it was not suspected before."""
        with self._lock:
            known = self._suspects.get(member_id)
            pause_s = PROBE_AFTER_S if known is None else min(known.pause_s * 2, PROBE_AFTER_S_MAX)
            self._suspects[member_id] = _Suspect(self._now_s() + pause_s, pause_s)
            self._ids = frozenset(self._suspects)
            return known is None

    def slow(self, member_id: str) -> bool:
        """Note that another answered while this one was silent; return whether it is a suspect by that."""
        with self._lock:
            count = self._slow[member_id] = self._slow.get(member_id, 0) + 1
            if count < _SLOW_MAX or member_id in self._suspects:
                return False
        return self.failed(member_id)

    def defer(self, member_id: str) -> None:
        """Have a suspect probed a moment later, which is skipped for another reason now."""
        with self._lock:
            if member_id in self._suspects:
                self._suspects[member_id] = _Suspect(self._now_s() + DEFER_S, PROBE_AFTER_S)

    def answered(self, member_id: str) -> None:
        """Note an answer, of a probe or to a request: the member is well."""
        if not self._suspects and not self._slow:
            return
        with self._lock:
            self._slow.pop(member_id, None)
            if self._suspects.pop(member_id, None) is not None:
                self._ids = frozenset(self._suspects)

    def keep(self, member_ids: frozenset[str]) -> None:
        """Forget all but these: who left the group is nobody's suspect."""
        with self._lock:
            for gone in [*self._suspects.keys() - member_ids]:
                del self._suspects[gone]
            for gone in [*self._slow.keys() - member_ids]:
                del self._slow[gone]
            self._ids = frozenset(self._suspects)

    def due(self) -> list[str]:
        """Return the ids whose time for a probe has come, the one that waits longest first."""
        now_s = self._now_s()
        with self._lock:
            due = [each for each, suspect in self._suspects.items() if suspect.probe_s <= now_s]
            return sorted(due, key=lambda each: self._suspects[each].probe_s)

    def due_in_s(self) -> float | None:
        """Return in how many seconds the next probe is due, None if there is nobody to probe."""
        with self._lock:
            nearest = min((suspect.probe_s for suspect in self._suspects.values()), default=None)
        return None if nearest is None else max(nearest - self._now_s(), 0.0)
