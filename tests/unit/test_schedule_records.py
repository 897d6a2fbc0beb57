"""The records of schedules and the lock of those who watch, apart from any cache."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from forebay.cache.loads.jobs import JobRecord, LoadRequest
from forebay.cache.schedules.presence import Presence
from forebay.cache.schedules.records import (
    LastRun,
    ScheduleRecord,
    ScheduleRecords,
    is_schedule_id,
    new_schedule_id,
)
from forebay.meta import Metadata


@pytest.fixture
def records(tmp_path: Path) -> Iterator[ScheduleRecords]:
    with Metadata(tmp_path / "meta") as metadata:
        yield ScheduleRecords(metadata.catalog)


HOURLY = ScheduleRecord("s1", LoadRequest("d", glob="*"), 5.0, cron="0 * * * *", timezone="UTC")
JOB = JobRecord("j1", HOURLY.request, 7, 10.0)


def test_a_record_is_read_back(records: ScheduleRecords) -> None:
    record = replace(HOURLY.planned_at(5.0), last=LastRun("j", "failed", "why", 4.0))
    assert records.add(record) == record
    assert records.all() == [record]
    assert record.due == 3600.0


def test_what_a_later_version_added_is_left_out() -> None:
    value = HOURLY.to_json()
    value["colour"] = value["request"]["shape"] = "red"
    assert ScheduleRecord.from_json(value) == HOURLY


def test_only_the_first_claim_of_a_run_holds(records: ScheduleRecords) -> None:
    seen = records.add(HOURLY.planned_at(5.0))
    assert records.claim(seen, JOB, 4000.0)
    assert not records.claim(seen, replace(JOB, id="j2"), 4000.0)
    assert not records.note_failure(seen, "why", 4000.0)
    (claimed,) = records.all()
    assert (claimed.job, claimed.due, claimed.runs) == ("j1", 7200.0, 1)


def test_an_end_is_noted_once(records: ScheduleRecords) -> None:
    records.add(HOURLY.planned_at(5.0))
    then = records.add(ScheduleRecord("s2", LoadRequest("d"), 6.0, after="s1"))
    seen, _ = records.all()
    assert records.claim(seen, JOB, 4000.0)
    assert records.note_end(seen, LastRun("j1", "done", "", 4001.0))
    assert not records.note_end(seen, LastRun("j1", "failed", "", 4002.0))
    first, second = records.all()
    assert first.followers == ["s2"]
    assert (first.job, first.last) == (None, LastRun("j1", "done", "", 4001.0))
    assert second == replace(then, due=4001.0, planned=4001.0)


def test_what_was_removed_or_changed_meanwhile_is_left_alone(records: ScheduleRecords) -> None:
    seen = records.add(HOURLY.planned_at(5.0))
    other = records.add(replace(HOURLY, id="s2", cron="5 * * * *").planned_at(5.0))
    records.plan_anew(other, 8000.0)
    records.remove("s1")
    before = records.all()
    assert not records.claim(seen, JOB, 4000.0)
    assert not records.note_end(seen, LastRun("j1", "done", "", 4001.0))
    for stale in (seen, other):
        records.note_over(stale, "why")
        records.plan_anew(stale, 9000.0)
    assert records.all() == before
    assert [record.due for record in before] == [11100.0]


def test_a_chain_of_any_length_is_over_with_its_beginning(records: ScheduleRecords) -> None:
    chain = [HOURLY] + [replace(HOURLY, id=f"s{n}", created=n, after=f"s{n - 1}") for n in range(2, 1_300)]
    with records._catalog.changing() as rows:
        for one, follower in pairwise([*chain, HOURLY]):
            rows.put("schedule", one.id, replace(one, followers=[follower.id]).to_json())
    records.remove("s1")
    left = records.all()
    assert [one.over for one in left[:2]] == ["schedule s1 was removed", "schedule s2 is over"]
    assert all(one.over is not None for one in left)
    assert len(left) == 1_298


def test_what_was_removed_follows_no_longer(records: ScheduleRecords) -> None:
    records.add(HOURLY.planned_at(5.0))
    for number in range(2, 6):
        records.add(ScheduleRecord(f"s{number}", LoadRequest("d"), float(number), after="s1"))
        if number < 5:
            records.remove(f"s{number}")
    assert records.all()[0].followers == ["s5"]


def test_ids_are_told_from_those_of_jobs() -> None:
    assert is_schedule_id(new_schedule_id())
    assert not is_schedule_id("20261127-215630-86b56d")
    assert len({new_schedule_id() for _ in range(100)}) == 100


def test_those_who_watch_are_seen_until_the_last_has_gone(tmp_path: Path) -> None:
    presence = Presence(tmp_path)
    assert not presence.is_watched()
    with presence.watching():
        with Presence(tmp_path).watching():
            assert presence.is_watched()
        assert presence.is_watched()
    assert not presence.is_watched()


def test_a_child_of_one_that_watches_does_not_watch(tmp_path: Path) -> None:
    presence = Presence(tmp_path)
    begun, end = os.pipe(), os.pipe()
    with presence.watching():
        pid = os.fork()
        if pid == 0:
            os.write(begun[1], b"x")
            os.read(end[0], 1)
            os._exit(0)
        assert os.read(begun[0], 1) == b"x"
    assert not presence.is_watched()
    os.write(end[1], b"x")
    os.waitpid(pid, 0)
    for descriptor in (*begun, *end):
        os.close(descriptor)


def test_a_shared_cache_lets_the_group_watch(tmp_path: Path) -> None:
    with Presence(tmp_path, os.getgid()).watching():
        assert stat.S_IMODE((tmp_path / "watchers").stat().st_mode) == 0o660
    (tmp_path / "watchers").unlink()
    with Presence(tmp_path).watching():
        assert stat.S_IMODE((tmp_path / "watchers").stat().st_mode) == 0o600
