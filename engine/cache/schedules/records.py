"""The records of schedules, durable in the catalog, and every change of them as one commit.

A run is claimed by the commit that writes its job, moves the schedule on and names the job in it. So whoever
comes second finds the record changed, and a watcher that is killed leaves either nothing or a job that the
next one goes on with. Its end is told to the schedules that run after it by the commit that notes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final

from forebay.cache.loads.jobs import JobRecord, LoadRequest, new_job_id
from forebay.cache.loads.progress import LoadState
from forebay.cache.schedules.times import next_time
from forebay.errors import ConfigError, JobNotFound, ScheduleNotFound
from forebay.meta import Catalog
from forebay.meta.catalog import CatalogChange, is_row_id

_KEPT_OVER_MAX: Final = 100
# Ids of jobs begin with the year.
_ID_PREFIX: Final = "s"


@dataclass(frozen=True)
class LastRun:
    """How a run ended, and when (seconds since 1970); job is None where not even a job could be made."""

    job: str | None
    state: LoadState
    reason: str
    ended: float


@dataclass(frozen=True)
class ScheduleRecord:
    """One schedule. Times are seconds since 1970.

    One of at, cron (with its time zone) and after (the id of a job or a schedule) says when; any_end is for
    after. list_digest is that of the file list's spool. followers are the ids of the schedules that run after
    it, and of some that no longer do. due is when the next run comes, None where that hangs on another's end;
    planned is when due was worked out. job is the run under way; over says why no run comes any more, None
    while one may.
    """

    id: str
    request: LoadRequest
    created: float
    at: float | None = None
    cron: str | None = None
    timezone: str | None = None
    after: str | None = None
    any_end: bool = False
    files_listed: int = 0
    list_digest: str = ""
    followers: list[str] = field(default_factory=list)
    due: float | None = None
    planned: float = 0.0
    job: str | None = None
    runs: int = 0
    last: LastRun | None = None
    over: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ScheduleRecord:
        """Make what ``to_json`` gave; what a later version added is left out."""
        known = {one.name: value[one.name] for one in fields(cls) if one.name in value}
        last = known.get("last")
        return cls(
            **{
                **known,
                "request": LoadRequest.from_json(known["request"]),
                "last": None if last is None else LastRun(**last),
            }
        )

    @property
    def comes_again(self) -> bool:
        """Whether it may run more than once."""
        return self.cron is not None or (self.after is not None and is_schedule_id(self.after))

    def asks_the_same(self, other: ScheduleRecord) -> bool:
        """Say whether the other would run the same load at the same times."""
        asked = ("request", "at", "cron", "timezone", "after", "any_end", "files_listed", "list_digest")
        return all(getattr(self, name) == getattr(other, name) for name in asked)

    def planned_at(self, now: float) -> ScheduleRecord:
        """Return it with the time of its first run, or of the one after those up to now."""
        due = self.at if self.cron is None else next_time(self.cron, self.timezone or "", now)
        return replace(self, due=due, planned=now)


class ScheduleRecords:
    """All schedules of one cache directory. Threads: any; other processes may write as well."""

    def __init__(self, catalog: Catalog) -> None:
        """Keep records in the catalog."""
        self._catalog: Final = catalog

    def last_commit(self) -> int:
        """Return a number that stays while no record, and no job's end, has changed."""
        return self._catalog.last_commit()

    def all(self) -> list[ScheduleRecord]:
        """Return all records, the oldest first."""
        found = [ScheduleRecord.from_json(row) for row in self._catalog.rows("schedule").values()]
        return sorted(found, key=lambda record: (record.created, record.id))

    def add(self, record: ScheduleRecord) -> ScheduleRecord:
        """Store a new record, or return the one that asks the same and is not over.

        Raises: JobNotFound, ScheduleNotFound, ConfigError (what it is to run after is unknown or over).
        """
        with self._catalog.changing() as rows:
            for known in _all(rows):
                if known.over is None and known.asks_the_same(record):
                    return known
            if record.after is not None:
                _follow(rows, record.id, record.after)
            _put(rows, record)
        self._catalog.back_up()
        return record

    def remove(self, schedule_id: str) -> None:
        """Remove a record; those that run after it are over. Raises: ScheduleNotFound."""
        with self._catalog.changing() as rows:
            record = _get(rows, schedule_id) if is_row_id(schedule_id) else None
            if record is None:
                raise ScheduleNotFound(f"there is no schedule {schedule_id!r}; see `forebay schedules`")
            rows.delete("schedule", schedule_id)
            _end_followers(rows, record, f"schedule {schedule_id} was removed")
        self._catalog.back_up()

    def claim(self, record: ScheduleRecord, job: JobRecord, now: float) -> bool:
        """Let a job be the run that is due; False: somebody came first, or the schedule was removed.

        What was missed up to now is this one run.
        """
        claimed = replace(_moved_on(record, now), job=job.id)
        with self._catalog.changing() as rows:
            if _get(rows, record.id) != record:
                return False
            rows.put("job", job.id, job.to_json())
            _put(rows, claimed)
        return True

    def note_failure(self, record: ScheduleRecord, reason: str, now: float) -> bool:
        """Let the run that is due have failed before there was a job; False: as ``claim``."""
        moved = _moved_on(record, now)
        with self._catalog.changing() as rows:
            if _get(rows, record.id) != record:
                return False
            _settle(rows, moved, LastRun(None, "failed", reason, now), now)
        return True

    def note_end(self, record: ScheduleRecord, last: LastRun) -> bool:
        """Note how the run under way ended, and tell those that run after it; False: it is noted."""
        with self._catalog.changing() as rows:
            current = _get(rows, record.id)
            if current is None or current.job != last.job:
                return False
            _settle(rows, current, last, last.ended)
        return True

    def note_over(self, record: ScheduleRecord, reason: str) -> None:
        """Note that no run comes any more, and why."""
        with self._catalog.changing() as rows:
            if _get(rows, record.id) == record:
                _end(rows, record, reason)

    def plan_anew(self, record: ScheduleRecord, now: float) -> None:
        """Work out the next run of a cron expression from the time that it is now."""
        planned = record.planned_at(now)
        with self._catalog.changing() as rows:
            if _get(rows, record.id) == record:
                _put(rows, planned)

    def prune(self) -> list[str]:
        """Remove the oldest that are over, above the number that is kept; return those that are left."""
        with self._catalog.changing() as rows:
            records = _all(rows)
            gone = [record.id for record in records if record.over is not None][:-_KEPT_OVER_MAX]
            for schedule_id in gone:
                rows.delete("schedule", schedule_id)
        return [record.id for record in records if record.id not in gone]


def _moved_on(record: ScheduleRecord, now: float) -> ScheduleRecord:
    """Return it as it is once the run that is due was begun."""
    moved = replace(record, runs=record.runs + 1)
    return replace(moved, due=None) if record.cron is None else moved.planned_at(now)


def _settle(rows: CatalogChange, record: ScheduleRecord, last: LastRun, now: float) -> None:
    """Write a schedule whose run has ended, and what that means for those that run after it."""
    settled = replace(record, job=None, last=last)
    _put(rows, settled)
    for follower in _followers(rows, record):
        if follower.due is None and (follower.any_end or last.state == "done"):
            _put(rows, replace(follower, due=now, planned=now))
    if record.cron is None and record.due is None:
        reason = _no_more(rows, record)
        if reason is not None:
            _end(rows, settled, reason)


def _no_more(rows: CatalogChange, record: ScheduleRecord) -> str | None:
    """Say why a schedule that is not due and has no times of its own never runs again, if that is so."""
    if record.after is None or not record.comes_again:
        return "it has run"
    source = _get(rows, record.after)
    if source is None:
        return f"schedule {record.after} was removed"
    return None if source.over is None else f"schedule {source.id} is over"


def _end(rows: CatalogChange, record: ScheduleRecord, reason: str) -> None:
    _put(rows, replace(record, over=reason))
    _end_followers(rows, record, f"schedule {record.id} is over")


def _end_followers(rows: CatalogChange, record: ScheduleRecord, reason: str) -> None:
    """Let those be over that run after a schedule that never runs again, unless their turn has come."""
    ended = [(record, reason)]
    while ended:
        source, why = ended.pop()
        for follower in _followers(rows, source):
            if follower.due is None and follower.job is None:
                _put(rows, replace(follower, over=why))
                ended.append((follower, f"schedule {follower.id} is over"))


def _follow(rows: CatalogChange, schedule_id: str, after: str) -> None:
    """Let a schedule run after a job, or after another schedule, which is told of it."""
    if is_schedule_id(after):
        known = _get(rows, after)
        if known is None:
            raise ScheduleNotFound(f"after: there is no schedule {after!r}; see `forebay schedules`")
        if known.over is not None:
            raise ConfigError(f"after: schedule {after} is over: {known.over}")
        left = [follower.id for follower in _followers(rows, known)]
        _put(rows, replace(known, followers=[*left, schedule_id]))
    elif not is_row_id(after) or rows.get("job", after) is None:
        raise JobNotFound(f"after: there is no job or schedule {after!r}; see `forebay jobs`")


def _followers(rows: CatalogChange, record: ScheduleRecord) -> list[ScheduleRecord]:
    found = [_get(rows, schedule_id) for schedule_id in record.followers]
    return [follower for follower in found if follower is not None and follower.over is None]


def is_schedule_id(text: str) -> bool:
    """Say whether a text is the id of a schedule rather than of a job."""
    return text.startswith(_ID_PREFIX) and is_row_id(text)


def new_schedule_id() -> str:
    """Return an id that sorts by time and is not given twice."""
    return _ID_PREFIX + new_job_id()


def _all(rows: CatalogChange) -> list[ScheduleRecord]:
    found = [ScheduleRecord.from_json(row) for row in rows.all("schedule").values()]
    return sorted(found, key=lambda record: (record.created, record.id))


def _get(rows: CatalogChange, schedule_id: str) -> ScheduleRecord | None:
    row = rows.get("schedule", schedule_id)
    return None if row is None else ScheduleRecord.from_json(row)


def _put(rows: CatalogChange, record: ScheduleRecord) -> None:
    rows.put("schedule", record.id, record.to_json())
