"""A cache with schedules in it, watched by a clock that a test sets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from forebay.cache import Cache
from forebay.cache.schedules.records import LastRun
from forebay.cache.schedules.schedule import Schedule
from forebay.cache.schedules.watch import Watcher, WatchEvent
from forebay.testing.faulty import FaultyStorage

HOUR = 3600.0
DAY = 24 * HOUR
NIGHTLY = "0 3 * * *"


class WallClock:
    """A wall clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Watch:
    """One watcher of a cache, and what it told of."""

    def __init__(self, cache: Cache, clock: Callable[[], float]) -> None:
        self.cache = cache
        self.events: list[WatchEvent] = []
        self.watcher = Watcher(cache._runtime().schedules, self.events.append, clock)

    def settle(self) -> list[WatchEvent]:
        """Look until there is nothing more to do at this time; return what happened."""
        before = len(self.events)
        while self.watcher.look() or self.wait_for_runs():
            pass
        return self.events[before:]

    def wait_for_runs(self) -> bool:
        """Wait until the runs under way have ended; say whether there were any."""
        jobs = [one.job for one in self.cache.schedules() if one.job is not None]
        for job in jobs:
            self.cache.job(job).wait(60)
        return bool(jobs)

    def begun(self) -> list[str]:
        """Settle, and return the schedules of which runs were begun."""
        return [event.schedule for event in self.settle() if event.event == "begun"]


def shown(cache: Cache, schedule_id: str) -> Schedule:
    """Return a schedule as it is now."""
    (found,) = [one for one in cache.schedules() if one.id == schedule_id]
    return found


def due_of(cache: Cache, schedule_id: str) -> float:
    """Return when a schedule is due."""
    due = shown(cache, schedule_id).due
    assert due is not None
    return due


def last_of(cache: Cache, schedule_id: str) -> LastRun:
    """Return how the last run of a schedule ended."""
    last = shown(cache, schedule_id).last
    assert last is not None
    return last


def in_hours(hours: float) -> datetime:
    """Return a time so many hours from now."""
    return datetime.now(UTC) + timedelta(hours=hours)


def nightly(cache: Cache, **options: Any) -> str:
    """Schedule the dataset for every night, and return the id."""
    return cache.schedule("d", cron=NIGHTLY, timezone="UTC", **options).id


def held(storage: FaultyStorage) -> tuple[threading.Event, threading.Event]:
    """Have the next listing wait for the second event once it has set the first."""
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        assert go_on.wait(60)

    storage.script("list", hold)
    return begun, go_on
