"""Watching schedules: beginning the loads that are due, and noting how they end.

Any number of watchers may watch one cache directory, each in a process of its own. They look at the records
twice a second and go by the wall clock as it is at that moment, so that a clock that was set, a machine that
slept and a watcher that was stopped need nothing special: what came due meanwhile is due now, once.

A run belongs to nobody. Whoever claims it (records.py) begins its job; where a watcher sees the job of a run
that nobody runs, it goes on with it; whoever sees it ended notes that.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from forebay.cache.loads.jobs import ENDED
from forebay.cache.loads.progress import LoadState
from forebay.cache.schedules.records import LastRun, ScheduleRecord, is_schedule_id
from forebay.cache.schedules.schedule import Schedules
from forebay.errors import Closed, ConfigError, JobNotFound, NotAttached

_log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.5
# So many loads of one watcher at a time; what is due beyond that waits for one of them to end.
_RUNS_MAX: Final = 4
# A job that was begun here and stopped without an end (a full disk) is tried again after so many looks.
_REST_LOOKS: Final = 60
# A clock that is set back by less repeats nothing; by more, it had been wrong, and what was planned by it is.
_CLOCK_BACK_MAX_S: Final = 86_400.0

EventKind = Literal["begun", "resumed", "ended"]


@dataclass(frozen=True)
class WatchEvent:
    """What a watcher did or saw at a time (seconds since 1970).

    begun: it began a run; resumed: it goes on with one that another left; ended: a run ended, in state, for
    reason. job is None where a run failed before there was one.
    """

    event: EventKind
    schedule: str
    target: str
    job: str | None
    at: float
    state: LoadState | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the event as plain data."""
        return asdict(self)


class Watcher:
    """Runs what schedules ask for, in this process. For one thread at a time.

    Loads that it began go on when it ends, until the cache is closed; that interrupts them, and the next
    watcher goes on with them.
    """

    def __init__(
        self,
        schedules: Schedules,
        on_event: Callable[[WatchEvent], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Watch these; now tells the wall clock's seconds since 1970. Nothing is begun yet."""
        self._schedules: Final = schedules
        self._records: Final = schedules.records
        self._jobs: Final = schedules.jobs
        self._loads: Final = schedules.loads
        self._on_event: Final = on_event or (lambda event: None)
        self._now: Final = now
        self._seen_at = -1
        self._running: list[ScheduleRecord] = []
        self._due: list[ScheduleRecord] = []
        # Jobs that run here, and those that were tried here of late, with the looks until they are again.
        self._own: set[str] = set()
        self._rests: dict[str, int] = {}
        self._events: list[WatchEvent] = []
        self._told = ""

    def run(self, until: threading.Event) -> None:
        """Watch until the event is set.

        Raises: ConfigError (a damaged catalog); Closed; OSError; what on_event raises.
        """
        with self._schedules.presence.watching():
            while not until.is_set():
                if not self.look():
                    until.wait(_LOOK_EVERY_S)

    def look(self) -> bool:
        """Look once, and do what there is to do; say whether a record was changed by that.

        Raises: as ``run``.
        """
        now, changed = self._now(), False
        self._own = {job_id for job_id in self._own if self._loads.is_running_here(job_id)}
        self._rests = {job_id: looks - 1 for job_id, looks in self._rests.items() if looks > 1}
        self._read()
        for see_to, records in ((self._follow, self._running), (self._begin_if_due, self._due)):
            for record in records:
                try:
                    changed |= see_to(record, now)
                except Closed:
                    raise
                except Exception as error:  # noqa: BLE001  (of one schedule, which the others do not wait for)
                    self._tell(f"schedule {record.id}: {error}; it is tried again")
        events, self._events = self._events, []
        for event in events:
            self._on_event(event)
        return changed

    def _read(self) -> None:
        """Read what other processes may have changed."""
        try:
            commit = self._records.last_commit()
            if commit != self._seen_at:
                records = [record for record in self._records.all() if record.over is None]
                self._running = [record for record in records if record.job is not None]
                due = [record for record in records if record.job is None and self._comes_due(record)]
                self._due = sorted(due, key=lambda record: (record.due or 0.0, record.id))
                self._seen_at = commit
        except OSError as error:
            self._tell(f"schedules: {error}; they are read again")

    def _comes_due(self, record: ScheduleRecord) -> bool:
        """Say whether it has a time, or may run because the job that it runs after has ended."""
        if record.due is not None:
            return True
        assert record.after is not None
        if is_schedule_id(record.after):
            return False
        try:
            ended = self._jobs.get(record.after).ended
        except JobNotFound:
            self._records.note_over(record, f"there is no job {record.after} any more")
            return False
        return ended in ENDED if record.any_end else ended == "done"

    def _begin_if_due(self, record: ScheduleRecord, now: float) -> bool:
        if record.cron is not None and now < record.planned - _CLOCK_BACK_MAX_S:
            self._records.plan_anew(record, now)
            return True
        # What runs after another goes by no clock.
        is_due = record.after is not None or (record.due is not None and record.due <= now)
        return is_due and len(self._own) < _RUNS_MAX and self._begin(record, now)

    def _begin(self, record: ScheduleRecord, now: float) -> bool:
        try:
            job, folder = self._schedules.prepare_job(record)
        except (NotAttached, ConfigError, FileNotFoundError) as error:
            if self._records.note_failure(record, str(error), now):
                self._add_event("ended", record, None, now, "failed", str(error))
            return True
        if not self._records.claim(record, job, now):
            folder.remove()
            return True
        self._add_event("begun", record, job.id, now)
        self._take_over(job.id)
        self._jobs.prune()
        return True

    def _follow(self, record: ScheduleRecord, now: float) -> bool:
        """Note the end of a run, or go on with one that nobody runs."""
        assert record.job is not None
        try:
            job, state = self._jobs.state(self._jobs.get(record.job))
            if state in ENDED:
                return self._note_end(record, state, job.reason, now)
            is_left = state != "running" and record.job not in self._rests
            if is_left and len(self._own) < _RUNS_MAX and self._take_over(record.job):
                self._add_event("resumed", record, record.job, now)
        except (JobNotFound, FileNotFoundError) as error:
            return self._note_end(record, "failed", str(error), now)
        return False

    def _take_over(self, job_id: str) -> bool:
        self._rests[job_id] = _REST_LOOKS
        is_ours = self._loads.take_over(job_id)
        if is_ours:
            self._own.add(job_id)
        return is_ours

    def _note_end(self, record: ScheduleRecord, state: LoadState, reason: str, now: float) -> bool:
        if self._records.note_end(record, LastRun(record.job, state, reason, now)):
            self._add_event("ended", record, record.job, now, state, reason)
        return True

    def _add_event(
        self,
        event: EventKind,
        record: ScheduleRecord,
        job: str | None,
        now: float,
        state: LoadState | None = None,
        reason: str = "",
    ) -> None:
        self._events.append(WatchEvent(event, record.id, record.request.target, job, now, state, reason))

    def _tell(self, words: str) -> None:
        """Log what went wrong, unless it is what was logged last: a disk stays full for many looks."""
        if words != self._told:
            _log.warning("%s", words)
            self._told = words
