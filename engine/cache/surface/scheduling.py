"""Schedules: loads that run at a time, by a cron expression, or after another has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from forebay.cache.loads.filelist import FileList
from forebay.cache.loads.load import load_request
from forebay.cache.runtime import Runtime
from forebay.cache.schedules.schedule import Schedule, When
from forebay.cache.schedules.watch import Watcher, WatchEvent
from forebay.cache.surface.base import CacheBase


class Scheduling(CacheBase):
    """The verbs for schedules."""

    def schedule(
        self,
        target: str,
        *,
        at: datetime | None = None,
        cron: str | None = None,
        after: str | None = None,
        any_end: bool = False,
        timezone: str | None = None,
        files: FileList | None = None,
        **options: Any,
    ) -> Schedule:
        """Have target loaded once at a time, by a cron expression, or after another load has ended.

        It runs where somebody watches: ``watcher``, `forebay load --watch`. at: a time; one without an
        offset is of timezone. cron: minute hour day month weekday, in timezone, as in '0 3 * * *'.
        timezone: a name such as 'Europe/Berlin'; the machine's by default. after: the id of a job, then it
        runs once, or of a schedule, then after each of its runs; only where that ended done, unless any_end.
        files and options are those of ``load`` (a file list is read now, and kept). What is scheduled
        already, the same load at the same times, is returned as it is.
        Raises: as ``load``; ConfigError (not one of at, cron, after; no such expression or time zone;
        dry_run; after a schedule that is over); JobNotFound, ScheduleNotFound (after).
        """
        when = When(at, cron, after, any_end, timezone)
        return self._runtime().schedules.add(load_request(target, **options), files, when)

    def schedules(self) -> list[Schedule]:
        """Return the schedules of this cache, the oldest first; of those that are over the last 100."""
        return self._runtime().schedules.all()

    def unschedule(self, schedule_id: str) -> None:
        """Remove a schedule; those that run after it are over. A load that it has begun goes on.

        Raises: ScheduleNotFound; PermissionError (a cache opened to be read only).
        """
        runtime = self._runtime()
        _check_writable(runtime)
        runtime.schedules.remove(schedule_id)

    def is_watched(self) -> bool:
        """Say whether any process of this host watches the schedules."""
        return self._runtime().schedules.presence.is_watched()

    def watcher(
        self,
        on_event: Callable[[WatchEvent], None] | None = None,
        *,
        now: Callable[[], float] = time.time,
    ) -> Watcher:
        """Return what runs the schedules in this process, once its ``run`` is called.

        on_event is told what is begun and how it ended; now tells the time, for tests. Raises:
        PermissionError (a cache opened to be read only).
        """
        runtime = self._runtime()
        _check_writable(runtime)
        return Watcher(runtime.schedules, on_event, now)


def _check_writable(runtime: Runtime) -> None:
    if runtime.parts.read_only:
        raise PermissionError("the cache is open to be read only; its schedules can only be looked at")
