"""The records of loads, durable in the catalog, with what is too large for a record in a folder beside it.

A record says what was asked and, once the job has ended, how. That it runs is not recorded: whoever runs it
holds a lock that dies with the process. A record that has not ended and that nobody runs is queued, if no
run ever began, or interrupted.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from forebay.cache.loads.progress import LoadState, Progress
from forebay.cache.loads.spool import JobFolder, remove_nameless
from forebay.errors import JobNotFound
from forebay.meta import Catalog

ENDED: Final[tuple[LoadState, ...]] = ("done", "incomplete", "failed", "cancelled")

_KEPT_ENDED_MAX: Final = 100


@dataclass(frozen=True)
class LoadRequest:
    """What is to be loaded: target is a dataset or a path in one; with listed, only what a file list names.

    rate_limit is bytes a second. manifest is the version that is made of it, and with use_manifest put in
    use; order the one whose order of access the names are listed in. share: the members of a group that
    divide what is to be loaded, by their ids; None: all of it is for this host.
    """

    target: str
    glob: str | None = None
    listed: bool = False
    metadata_only: bool = False
    dry_run: bool = False
    verify: bool = False
    rate_limit: int | None = None
    manifest: str | None = None
    use_manifest: bool = False
    order: str | None = None
    share: tuple[str, ...] | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LoadRequest:
        """Make a request of its fields; what a later version added is left out."""
        known = _known_fields(cls, value)
        share = known.get("share")
        return cls(**{**known, "share": None if share is None else tuple(share)})


@dataclass(frozen=True)
class JobRecord:
    """One job: its request, when it was made (seconds since 1970), and how it ended.

    ended is a final state, None before; files_listed counts the names of the file list.
    """

    id: str
    request: LoadRequest
    dataset_id: int
    created: float
    files_listed: int = 0
    ended: LoadState | None = None
    reason: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {**asdict(self), "request": asdict(self.request), "progress": dict(self.progress)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> JobRecord:
        """Make what ``to_json`` gave; what a later version added is left out."""
        known = _known_fields(cls, value)
        return cls(**{**known, "request": LoadRequest.from_json(known["request"])})


class Jobs:
    """All jobs of one cache directory. Threads: any; other processes may write as well."""

    def __init__(self, catalog: Catalog, folder: Path, shared_group: int | None = None) -> None:
        """Keep records in the catalog and folders below this one."""
        self._catalog: Final = catalog
        self._folder: Final = folder
        self._shared_group: Final = shared_group

    def folder(self, job_id: str) -> JobFolder:
        """Return the folder of a job."""
        return JobFolder(self._folder / job_id, self._shared_group)

    def put(self, record: JobRecord) -> None:
        """Store a record."""
        self._catalog.put_row("job", record.id, record.to_json())

    def get(self, job_id: str) -> JobRecord:
        """Return a record. Raises: JobNotFound."""
        try:
            row = self._catalog.get_row("job", job_id)
        except ValueError:
            row = None
        if row is None:
            raise JobNotFound(f"there is no job {job_id!r}; see `forebay jobs`")
        return JobRecord.from_json(row)

    def all(self) -> list[JobRecord]:
        """Return all records, the oldest first."""
        found = [JobRecord.from_json(row) for row in self._catalog.rows("job").values()]
        return sorted(found, key=lambda record: (record.created, record.id))

    def end(self, record: JobRecord, state: LoadState, reason: str, progress: Progress) -> JobRecord:
        """Record how a job ended."""
        ended = replace(record, ended=state, reason=reason, progress=progress.to_json())
        self.put(ended)
        return ended

    def state(self, record: JobRecord) -> tuple[JobRecord, LoadState]:
        """Return the record, anew if it has ended meanwhile, and the state that the job is in."""
        if record.ended is None:
            folder = self.folder(record.id)
            if folder.is_running():
                return record, "running"
            # Whoever ran it wrote the end before giving up the lock.
            record = self.get(record.id)
            if record.ended is None:
                return record, "interrupted" if folder.get("progress") else "queued"
        return record, record.ended

    def prune(self) -> None:
        """Remove the oldest of the jobs that have ended, above the number that is kept."""
        records, awaited = self.all(), self._awaited()
        ended = [record for record in records if record.ended is not None and record.id not in awaited]
        for record in ended[:-_KEPT_ENDED_MAX]:
            self._catalog.delete_row("job", record.id)
            self.folder(record.id).remove()
        remove_nameless(self._folder, {record.id for record in records})

    def _awaited(self) -> set[str]:
        """Return the jobs whose end a schedule has yet to see: its own run's, or the one it runs after."""
        rows = self._catalog.rows("schedule").values()
        return {row[key] for row in rows for key in ("job", "after") if row[key] and row["over"] is None}


def source_text(request: LoadRequest) -> str:
    """Say in words what a load goes through."""
    parts = [request.target]
    if request.glob is not None:
        parts.append(f"glob {request.glob}")
    if request.order is not None:
        parts.append(f"in the order of {request.order}")
    elif request.listed:
        parts.append("a file list")
    return ", ".join(parts)


def _known_fields(kind: type[Any], value: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: value[one.name] for one in fields(kind) if one.name in value}


def new_job_id() -> str:
    """Return an id that sorts by time and is not given twice."""
    return f"{datetime.fromtimestamp(time.time(), UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
