"""Schedules as they are made, shown and removed; what makes them run is a ``Watcher`` (watch.py).

A schedule is on disk, like a job. Its file list, if it has one, is read when it is made and kept beside it.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from forebay.cache.loads.filelist import FileList
from forebay.cache.loads.jobs import ENDED, JobRecord, Jobs, LoadRequest
from forebay.cache.loads.load import Loads
from forebay.cache.loads.spool import JobFolder, remove_nameless
from forebay.cache.schedules.presence import Presence
from forebay.cache.schedules.records import (
    LastRun,
    ScheduleRecord,
    ScheduleRecords,
    is_schedule_id,
    new_schedule_id,
)
from forebay.cache.schedules.times import local_zone, moment_of
from forebay.errors import ConfigError, JobNotFound

# waiting: for its time or for another's end; due: a watcher is to begin it; over: no run comes any more.
ScheduleState = Literal["waiting", "due", "running", "over"]

_NAMES: Final = "names"


@dataclass(frozen=True)
class When:
    """When a load is to run: one of at, cron and after.

    A time without an offset, and a cron expression, are of the time zone, or of the machine's. after is the
    id of a job or a schedule; any_end: also where that did not end done.
    """

    at: datetime | None = None
    cron: str | None = None
    after: str | None = None
    any_end: bool = False
    timezone: str | None = None


@dataclass(frozen=True)
class Schedule:
    """One schedule as it was at a moment. Times are seconds since 1970.

    One of at, cron (with its time zone) and after (the id of a job or a schedule) says when it runs; any_end
    is for after. due is when the next run comes, None where that is not known; job is the run under way;
    runs counts those that were begun; reason says why it is over, or what it waits for.
    """

    id: str
    created: float
    request: LoadRequest
    at: float | None
    cron: str | None
    timezone: str | None
    after: str | None
    any_end: bool
    state: ScheduleState
    reason: str
    due: float | None
    job: str | None
    runs: int
    last: LastRun | None

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as plain data."""
        return asdict(self)


class Schedules:
    """The schedules of one cache, for one process. Threads: any."""

    def __init__(
        self, records: ScheduleRecords, jobs: Jobs, loads: Loads, folder: Path, shared_group: int | None
    ) -> None:
        """Keep records there, and file lists in folders below this one; nothing is made yet."""
        self.records: Final = records
        self.jobs: Final = jobs
        self.loads: Final = loads
        self._folder: Final = folder
        self._shared_group: Final = shared_group
        self.presence: Final = Presence(folder.parent, shared_group)

    def add(self, request: LoadRequest, files: FileList | None, when: When) -> Schedule:
        """Make a schedule, or return the one that does the same already.

        Raises: as ``Cache.schedule``.
        """
        if request.dry_run:
            raise ConfigError("dry_run: a schedule loads; a dry run would tell nobody")
        self.loads.dataset_of(request)
        record = _timed(ScheduleRecord(new_schedule_id(), request, time.time()), when)
        if request.manifest is not None and record.comes_again:
            raise ConfigError("manifest: a version is made once, and what is asked for runs again and again")
        folder = self._list_folder(record.id)
        try:
            kept = self.records.add(self._with_list(record, files, folder))
        except BaseException:
            folder.remove()
            raise
        if kept.id != record.id:
            folder.remove()
        remove_nameless(self._folder, set(self.records.prune()))
        return self._shown(kept, time.time())

    def all(self) -> list[Schedule]:
        """Return all schedules, the oldest first; of those that are over the last."""
        now = time.time()
        return [self._shown(record, now) for record in self.records.all()]

    def remove(self, schedule_id: str) -> None:
        """Remove a schedule; a run that is under way goes on. Raises: ScheduleNotFound."""
        self.records.remove(schedule_id)
        self._list_folder(schedule_id).remove()

    def prepare_job(self, record: ScheduleRecord) -> tuple[JobRecord, JobFolder]:
        """Make the job of a run, with the schedule's file list; nobody knows of it yet.

        Raises: as ``Loads.prepare``.
        """
        job, folder = self.loads.prepare(record.request)
        try:
            if record.request.listed:
                folder.copy_list(_NAMES, self._list_folder(record.id))
        except BaseException:
            folder.remove()
            raise
        return replace(job, files_listed=record.files_listed), folder

    def _with_list(self, record: ScheduleRecord, files: FileList | None, folder: JobFolder) -> ScheduleRecord:
        """Read the file list, or the order of access, that is to be loaded, if there is one."""
        if files is None and record.request.order is None:
            return record
        folder.make()
        request, count = self.loads.spool_list(record.request, files, folder)
        with open(folder.path / _NAMES, "rb") as names:
            digest = hashlib.file_digest(names, "sha256").hexdigest()
        return replace(record, request=request, files_listed=count, list_digest=digest)

    def _list_folder(self, schedule_id: str) -> JobFolder:
        return JobFolder(self._folder / schedule_id, self._shared_group)

    def _shown(self, record: ScheduleRecord, now: float) -> Schedule:
        state, reason = self._state_of(record, now)
        return Schedule(
            id=record.id,
            created=record.created,
            request=record.request,
            at=record.at,
            cron=record.cron,
            timezone=record.timezone,
            after=record.after,
            any_end=record.any_end,
            state=state,
            reason=reason,
            due=record.due,
            job=record.job,
            runs=record.runs,
            last=record.last,
        )

    def _state_of(self, record: ScheduleRecord, now: float) -> tuple[ScheduleState, str]:
        if record.job is not None:
            return "running", ""
        if record.over is not None:
            return "over", record.over
        if record.due is not None:
            return ("due", "") if record.due <= now else ("waiting", "")
        assert record.after is not None
        if is_schedule_id(record.after):
            return "waiting", f"runs after schedule {record.after}"
        try:
            _, state = self.jobs.state(self.jobs.get(record.after))
        except JobNotFound:
            return "waiting", f"there is no job {record.after} any more"
        is_due = state in ENDED if record.any_end else state == "done"
        return "due" if is_due else "waiting", f"job {record.after} is {state}"


def _timed(record: ScheduleRecord, when: When) -> ScheduleRecord:
    """Return the record with when it runs, and its first run. Raises: ConfigError."""
    if sum(one is not None for one in (when.at, when.cron, when.after)) != 1:
        raise ConfigError("a schedule needs one of at, cron and after")
    for name, given, kind in (
        ("at", when.at, datetime),
        ("cron", when.cron, str),
        ("after", when.after, str),
    ):
        if given is not None and not isinstance(given, kind):
            raise ConfigError(f"{name}: is a {kind.__name__}, not {given!r}")
    if when.after is not None:
        if when.timezone is not None:
            raise ConfigError("timezone: is for at and cron; what runs after another has no time of its own")
        return replace(record, after=when.after, any_end=when.any_end)
    if when.any_end:
        raise ConfigError("any_end: is for what runs after another")
    if when.at is not None:
        timed = replace(record, at=moment_of(when.at, when.timezone))
    else:
        timed = replace(record, cron=when.cron, timezone=when.timezone or local_zone())
    return timed.planned_at(record.created)
