"""How far a load is: the figures as they are counted, and as they are shown."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal

# queued: nobody has begun; interrupted: nobody runs it any more, and `resume` goes on with it. The last four
# are final: done: all is cached; incomplete: it went through, but not all is; failed: it could not go
# through; cancelled.
LoadState = Literal["queued", "running", "interrupted", "done", "incomplete", "failed", "cancelled"]
Outcome = Literal["done", "skipped", "failed", "not_admitted", "evicted"]

_RATE_WINDOW_S: Final = 5.0


@dataclass(frozen=True)
class Progress:
    """The figures of one run of a load; a run that resumes another counts anew.

    Totals are None while they are not known: listing goes on, or the sizes of listed names are not asked
    yet. files_done were fetched by this run and are cached, files_skipped were cached before, files_failed
    could not be read, files_not_admitted found no room; files_evicted, counted at the end, are those done or
    skipped that had to give way to others again. With verify a file is done or skipped once it was verified.
    bytes_done and bytes_skipped are the bytes of the first two; rate is bytes a second, over the last seconds
    or, at the end, over all of the run; started is the time of day in seconds since 1970, eta seconds from
    now, None where nothing can be said. A dry run counts as done what it would fetch, one of metadata only
    what it found, without bytes.
    """

    state: LoadState = "queued"
    files_total: int | None = None
    files_done: int = 0
    files_skipped: int = 0
    files_failed: int = 0
    files_not_admitted: int = 0
    files_evicted: int = 0
    bytes_total: int | None = None
    bytes_done: int = 0
    bytes_skipped: int = 0
    rate: float = 0.0
    started: float | None = None
    eta: float | None = None

    @property
    def files_settled(self) -> int:
        """Files of which it is known how they ended."""
        return self.files_done + self.files_skipped + self.files_failed + self.files_not_admitted

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Progress:
        """Make what ``to_json`` gave."""
        return cls(**{field.name: value[field.name] for field in fields(cls) if field.name in value})


class Meter:
    """Counts one run. Threads: any."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        """Begin at nothing."""
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._files: Final[dict[Outcome, int]] = {"done": 0, "skipped": 0, "failed": 0, "not_admitted": 0}
        self._evicted = 0
        self._bytes: Final[dict[Outcome, int]] = dict(self._files)
        self._fetched_bytes = 0
        self._totals: tuple[int, int | None] | None = None
        self._samples: Final[deque[tuple[float, int, int]]] = deque()
        self._started: Final = now()
        self._begun: Final = clock()
        self._sample()

    def fetched(self, count_bytes: int) -> None:
        """Count bytes that came, before their file has ended."""
        with self._lock:
            self._fetched_bytes += count_bytes

    def settled(self, outcome: Outcome, size_bytes: int, files: int = 1) -> None:
        """Count files that ended so, with their bytes together."""
        with self._lock:
            self._files[outcome] += files
            self._bytes[outcome] += size_bytes

    def evicted(self) -> None:
        """Count a file that was done or skipped and is cached no longer."""
        with self._lock:
            self._evicted += 1

    def set_totals(self, files: int, size_bytes: int | None) -> None:
        """Say how many files and bytes there are in all."""
        with self._lock:
            self._totals = (files, size_bytes)

    def progress(self, state: LoadState = "running") -> Progress:
        """Return the figures as they are now."""
        with self._lock:
            self._sample()
            files_total, bytes_total = self._totals or (None, None)
            if bytes_total is None and files_total == sum(self._files.values()):
                bytes_total = sum(self._bytes.values())
            files_rate, rate = self._rates() if state == "running" else self._rates_in_all()
            found = Progress(
                state=state,
                files_total=files_total,
                files_done=self._files["done"],
                files_skipped=self._files["skipped"],
                files_failed=self._files["failed"],
                files_not_admitted=self._files["not_admitted"],
                files_evicted=self._evicted,
                bytes_total=bytes_total,
                bytes_done=self._bytes["done"],
                bytes_skipped=self._bytes["skipped"],
                rate=rate,
                started=self._started,
            )
            left_bytes = None if bytes_total is None else bytes_total - sum(self._bytes.values())
        return replace(found, eta=_eta(found, left_bytes, files_rate))

    def _sample(self) -> None:
        now = self._clock()
        self._samples.append((now, self._fetched_bytes, sum(self._files.values())))
        while len(self._samples) > 2 and self._samples[1][0] < now - _RATE_WINDOW_S:
            self._samples.popleft()

    def _rates_in_all(self) -> tuple[float, float]:
        passed = max(self._samples[-1][0] - self._begun, 1e-6)
        return sum(self._files.values()) / passed, self._fetched_bytes / passed

    def _rates(self) -> tuple[float, float]:
        """Return files and bytes a second between the first and the last sample."""
        (begun, bytes_then, files_then), (now, bytes_now, files_now) = self._samples[0], self._samples[-1]
        passed = now - begun
        if passed <= 0:
            return 0.0, 0.0
        return (files_now - files_then) / passed, (bytes_now - bytes_then) / passed


def _eta(progress: Progress, left_bytes: int | None, files_rate: float) -> float | None:
    if progress.state != "running" or progress.files_total is None:
        return None
    left_files = progress.files_total - progress.files_settled
    if left_files == 0:
        return 0.0
    if left_bytes is not None and progress.rate > 0:
        return left_bytes / progress.rate
    return left_files / files_rate if files_rate > 0 else None
