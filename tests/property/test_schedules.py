"""Schedules against a model: whatever the clock does, and whoever looks, each run comes once, none is lost.

One runs at every hour, one after it, and others once. The clock goes on and is set, back by less than a day.
Two watchers look, one after the other, and either may be replaced by a new one.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from forebay.cache import Cache
from forebay.cache.schedules.watch import Watcher
from forebay.config import MIB, Tier
from forebay.testing.faulty import FaultyStorage

HOUR = 3600.0


@dataclass
class Once:
    """What is known of a schedule for one time."""

    at: float
    has_run: bool = False


class SchedulesMachine(RuleBasedStateMachine):
    """The cache's schedules, and when they ought to have run."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="forebay-schedules-", dir="/dev/shm"))
        self.storage = FaultyStorage()
        self.caches = [self.open(), self.open()]
        self.caches[0].attach("d", "faulty://x")
        self.now = time.time()
        self.watchers = [self.watcher(number) for number in (0, 1)]
        hourly = self.caches[0].schedule("d", cron="0 * * * *", timezone="UTC", metadata_only=True)
        then = self.caches[0].schedule("d", after=hourly.id, metadata_only=True)
        self.hourly, self.then = hourly.id, then.id
        assert hourly.due is not None
        self.due, self.runs = hourly.due, 0
        self.once: dict[str, Once] = {}

    def open(self) -> Cache:
        tiers = [Tier(str(self.folder / "tier"), 32 * MIB, "MEM")]
        return Cache(self.folder / "cache", tiers, schemes=self.storage.schemes())

    def watcher(self, number: int) -> Watcher:
        return self.caches[number].watcher(now=lambda: self.now)

    def teardown(self) -> None:
        for cache in self.caches:
            cache.close()
        shutil.rmtree(self.folder)

    @rule(hours=st.floats(0, 50))
    def goes_on(self, hours: float) -> None:
        self.now += hours * HOUR

    @rule(hours=st.floats(0, 23.9))
    def is_set_back(self, hours: float) -> None:
        # Not before what was planned last, by more than a day in all.
        self.now = max(self.now - hours * HOUR, self.due - 24 * HOUR)

    @rule()
    def comes_due(self) -> None:
        self.now = max(self.now, self.due)

    @rule(hours=st.floats(-5, 30))
    def add_once(self, hours: float) -> None:
        at = datetime.fromtimestamp(self.now + hours * HOUR, UTC)
        made = self.caches[0].schedule("d", at=at, metadata_only=True)
        self.once.setdefault(made.id, Once(at.timestamp()))

    @rule(number=st.sampled_from([0, 1]))
    def look(self, number: int) -> None:
        watcher, cache = self.watchers[number], self.caches[number]
        while watcher.look() or any(one.job for one in cache.schedules()):
            pass
        if self.now >= self.due:
            self.runs += 1
            self.due = (self.now // HOUR + 1) * HOUR
        for one in self.once.values():
            one.has_run |= self.now >= one.at

    @rule(number=st.sampled_from([0, 1]))
    def replace_watcher(self, number: int) -> None:
        self.caches[number].close()
        self.caches[number] = self.open()
        self.watchers[number] = self.watcher(number)

    @invariant()
    def is_as_it_ought_to_be(self) -> None:
        found = {one.id: one for one in self.caches[1].schedules()}
        assert (found[self.hourly].due, found[self.hourly].runs) == (self.due, self.runs)
        assert found[self.then].runs == self.runs
        for schedule_id, one in self.once.items():
            assert (found[schedule_id].runs, found[schedule_id].state == "over") == (one.has_run, one.has_run)
        began = sum(one.runs for one in found.values())
        assert len(self.caches[0].jobs()) == began


def test_schedules_against_a_model() -> None:
    run_state_machine_as_test(
        SchedulesMachine, settings=settings(max_examples=20, stateful_step_count=20, deadline=None)
    )
