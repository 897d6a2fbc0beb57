"""Schedules through the cache: when loads run, by a clock that the test sets, and what is known of them."""

from __future__ import annotations

import io
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.errors import ConfigError, JobNotFound, NotAttached, ScheduleNotFound, UnderStorageError
from forebay.testing.faulty import FaultyStorage
from tests.integration._schedules import (
    DAY,
    HOUR,
    NIGHTLY,
    WallClock,
    Watch,
    due_of,
    held,
    in_hours,
    last_of,
    nightly,
    shown,
)


def test_once(cache: Cache, watch: Watch, clock: WallClock, storage: FaultyStorage) -> None:
    one = cache.schedule("d", at=in_hours(1))
    assert (one.state, one.runs, one.last, one.reason) == ("waiting", 0, None, "")
    assert one.due == one.at == pytest.approx(time.time() + HOUR, abs=60)
    clock.now = due_of(cache, one.id) - 1
    assert watch.settle() == []
    clock.now += 1
    begun, ended = watch.settle()
    assert (begun.event, begun.schedule, begun.target, begun.at) == ("begun", one.id, "d", clock.now)
    assert (ended.event, ended.job, ended.state, ended.reason) == ("ended", begun.job, "done", "")
    over = shown(cache, one.id)
    assert (over.state, over.reason, over.runs, over.due, over.job) == ("over", "it has run", 1, None, None)
    last = last_of(cache, one.id)
    assert (last.job, last.state, last.ended) == (begun.job, "done", clock.now)
    assert storage.calls["read_range"] == 3
    clock.now += 100 * DAY
    assert watch.settle() == []


def test_a_time_that_has_passed_is_a_run_that_was_missed(cache: Cache, watch: Watch) -> None:
    one = cache.schedule("d", at=in_hours(-1000))
    assert one.state == "due"
    assert watch.begun() == [one.id]


def test_by_cron_in_a_time_zone(cache: Cache, watch: Watch, clock: WallClock) -> None:
    one = cache.schedule("d", cron=NIGHTLY, timezone="Asia/Kolkata")
    for run in range(1, 4):
        due = due_of(cache, one.id)
        assert datetime.fromtimestamp(due, UTC).strftime("%H:%M") == "21:30"
        clock.now = due - 1
        assert watch.begun() == []
        clock.now = due
        assert watch.begun() == [one.id]
        again = shown(cache, one.id)
        assert (again.state, again.due, again.runs) == ("waiting", due + DAY, run)


def test_runs_that_were_missed_are_one(cache: Cache, watch: Watch, clock: WallClock) -> None:
    one = nightly(cache)
    first = due_of(cache, one)
    clock.now = first + 30 * DAY + HOUR
    assert watch.begun() == [one]
    assert due_of(cache, one) == first + 31 * DAY
    assert watch.settle() == []


def test_a_clock_that_is_set_back_repeats_nothing(cache: Cache, watch: Watch, clock: WallClock) -> None:
    one, once = nightly(cache), cache.schedule("d/a", at=in_hours(0)).id
    clock.now = first = due_of(cache, one)
    assert sorted(watch.begun()) == sorted([one, once])
    for back in (1.0, HOUR, 23 * HOUR):
        clock.now = first - back
        assert watch.settle() == []
        clock.now = first + 1
        assert watch.settle() == []
    clock.now = first + DAY
    assert watch.begun() == [one]


def test_a_clock_that_had_been_wrong_by_more_than_a_day_is_not_waited_for(
    cache: Cache, watch: Watch, clock: WallClock
) -> None:
    one = nightly(cache)
    first = due_of(cache, one)
    clock.now = first + 400 * DAY
    assert watch.begun() == [one]
    clock.now = first + HOUR
    assert watch.settle() == []
    assert due_of(cache, one) == first + DAY
    clock.now = first + DAY
    assert watch.begun() == [one]


def test_a_clock_that_is_set_forward_runs_what_it_passes_once(
    cache: Cache, watch: Watch, clock: WallClock
) -> None:
    one = cache.schedule("d", cron="*/5 * * * *", timezone="UTC").id
    clock.now = due_of(cache, one) + 7 * HOUR
    assert watch.begun() == [one]
    assert clock.now < due_of(cache, one) <= clock.now + 300
    assert watch.settle() == []


def test_after_a_job(cache: Cache, watch: Watch, storage: FaultyStorage) -> None:
    storage.script("read_range", UnderStorageError(5, "HTTP 500", "faulty://x/a"))
    job = cache.load("d", start=False)
    then = cache.schedule("d/sub", after=job.id)
    anyhow = cache.schedule("d/sub", after=job.id, any_end=True)
    assert (then.state, then.reason, then.due) == ("waiting", f"job {job.id} is queued", None)
    assert watch.settle() == []
    assert cache.resume(job.id).wait(60).state == "incomplete"
    assert shown(cache, anyhow.id).state == "due"
    assert watch.begun() == [anyhow.id]
    waits = shown(cache, then.id)
    assert (waits.state, waits.reason) == ("waiting", f"job {job.id} is incomplete")
    # Tried again, the job is done, and that is an end as well.
    assert cache.resume(job.id).wait(60).ok
    assert watch.begun() == [then.id]
    assert watch.settle() == []
    assert {one.state for one in cache.schedules()} == {"over"}


def test_after_a_job_by_whatever_the_clock_says(cache: Cache, watch: Watch, clock: WallClock) -> None:
    job = cache.load("d", wait=True)
    one = cache.schedule("d/sub", after=job.id)
    clock.now -= 1000 * DAY
    assert watch.begun() == [one.id]


def test_after_each_run_of_a_schedule(cache: Cache, watch: Watch, clock: WallClock) -> None:
    first = nightly(cache)
    second = cache.schedule("d/sub", after=first).id
    third = cache.schedule("d/a", after=second).id
    for run in range(1, 4):
        clock.now = due_of(cache, first)
        assert watch.begun() == [first, second, third]
        assert [one.runs for one in cache.schedules()] == [run] * 3
    assert shown(cache, second).reason == f"runs after schedule {first}"


def test_after_a_run_that_failed(
    cache: Cache, watch: Watch, clock: WallClock, storage: FaultyStorage
) -> None:
    first = nightly(cache)
    then = cache.schedule("d/sub", after=first).id
    anyhow = cache.schedule("d/a", after=first, any_end=True).id
    storage.script("list", UnderStorageError(5, "HTTP 500", "faulty://x"))
    clock.now = due_of(cache, first)
    assert watch.begun() == [first, anyhow]
    clock.now = due_of(cache, first)
    assert set(watch.begun()) == {first, then, anyhow}


def test_what_runs_after_one_that_is_over_is_over(cache: Cache, watch: Watch) -> None:
    first = cache.schedule("d", at=in_hours(-1)).id
    second = cache.schedule("d/sub", after=first).id
    third = cache.schedule("d/none", after=second).id
    fourth = cache.schedule("d/a", after=third).id
    assert watch.begun() == [first, second, third]
    by_id = {one.id: one for one in cache.schedules()}
    assert by_id[second].reason == f"schedule {first} is over"
    assert last_of(cache, third).state == "failed"
    # It waited for an end that was not done.
    assert (by_id[fourth].state, by_id[fourth].runs) == ("over", 0)
    assert by_id[fourth].reason == f"schedule {third} is over"
    with pytest.raises(ConfigError, match="is over: it has run"):
        cache.schedule("d", after=first)


def test_a_schedule_that_fails_goes_on_and_shows_why(
    cache: Cache, watch: Watch, clock: WallClock, storage: FaultyStorage
) -> None:
    one = nightly(cache)
    storage.script("list", UnderStorageError(5, "HTTP 500", "faulty://x"))
    clock.now = due_of(cache, one)
    watch.settle()
    last = last_of(cache, one)
    assert (last.state, last.reason) == ("failed", "faulty://x: HTTP 500")
    cache.detach("d")
    clock.now = due_of(cache, one)
    (ended,) = watch.settle()
    assert (ended.event, ended.job, ended.state) == ("ended", None, "failed")
    last = last_of(cache, one)
    assert (last.job, last.state, last.reason) == (None, "failed", ended.reason)
    assert ended.reason.startswith("no dataset 'd' is attached")
    # A schedule goes by the dataset's name, whatever that stands for by then.
    cache.attach("d", "faulty://y")
    clock.now = due_of(cache, one)
    watch.settle()
    assert last_of(cache, one).state == "done"
    assert shown(cache, one).runs == 3


def test_a_run_that_is_due_again_waits_for_the_one_before(
    cache: Cache, watch: Watch, clock: WallClock, storage: FaultyStorage
) -> None:
    begun, go_on = held(storage)
    one = nightly(cache)
    clock.now = first = due_of(cache, one)
    assert watch.watcher.look()
    assert begun.wait(60)
    running = shown(cache, one)
    assert (running.state, running.due) == ("running", first + DAY)
    clock.now = first + 5 * DAY
    assert not watch.watcher.look()
    go_on.set()
    assert watch.begun() == [one]
    assert (shown(cache, one).runs, due_of(cache, one)) == (2, first + 6 * DAY)


def test_what_is_due_at_once_runs_few_at_a_time(cache: Cache, watch: Watch, storage: FaultyStorage) -> None:
    gates = [held(storage) for _ in range(9)]
    ids = [cache.schedule("d", glob=f"x{number}", at=in_hours(-1)).id for number in range(9)]
    watch.watcher.look()
    watch.watcher.look()
    running = [one for one in cache.schedules() if one.state == "running"]
    assert len(running) == 4
    for begun, go_on in gates:
        go_on.set()
        del begun
    watch.settle()
    assert [event.schedule for event in watch.events if event.event == "begun"] == ids
    assert all(one.state == "over" and one.runs == 1 for one in cache.schedules())


def test_a_cancelled_run_ends_and_the_schedule_goes_on(
    cache: Cache, watch: Watch, clock: WallClock, storage: FaultyStorage
) -> None:
    begun, go_on = held(storage)
    one = nightly(cache)
    clock.now = due_of(cache, one)
    watch.watcher.look()
    assert begun.wait(60)
    job = shown(cache, one).job
    assert job is not None
    cache.job(job).cancel()
    go_on.set()
    assert [event.state for event in watch.settle()] == ["cancelled"]
    clock.now = due_of(cache, one)
    assert watch.begun() == [one]


def test_options_are_those_of_a_load(cache: Cache, watch: Watch) -> None:
    one = cache.schedule(
        "d/sub/", at=in_hours(-1), glob="*.txt", metadata_only=True, verify=False, rate_limit="1MB"
    )
    assert (one.request.target, one.request.rate_limit) == ("d/sub", 1_000_000)
    watch.settle()
    (job,) = cache.jobs()
    assert job.request == one.request
    assert job.result().progress.files_done == 1
    assert cache.status()["blocks"] == 0


@pytest.mark.parametrize("kind", ["path", "stream", "names"])
def test_a_file_list_is_kept(cache: Cache, watch: Watch, clock: WallClock, tmp_path: Path, kind: str) -> None:
    names = "a\nsub/b\n../x\n"
    path = tmp_path / "list"
    path.write_text(names)
    files: Any = {"path": path, "stream": io.StringIO(names), "names": iter(names.split())}[kind]
    one = nightly(cache, files=files)
    path.unlink()
    for _ in range(2):
        clock.now = due_of(cache, one)
        (_, ended) = watch.settle()
        assert (ended.state, ended.reason) == ("incomplete", "of 3 files 1 failed")
        assert ended.job is not None
        assert [file.line for file in cache.job(ended.job).results()] == [3]
        assert cache.job(ended.job).request.listed
    cache.unschedule(one)
    assert list((tmp_path / "cache/v1/meta/schedules").iterdir()) == []


def test_an_order_is_kept_as_a_file_list_is(cache: Cache, watch: Watch) -> None:
    names = ["sub/c.txt", "a"]
    rows = [{"path": name, "size": 1, "version": "v"} for name in names]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    cache.import_manifest("d", "v1", io.BytesIO(text), ordered=True)
    one = cache.schedule("d", at=in_hours(-1), order="v1")
    assert (one.request.order, one.request.listed) == ("v1", True)
    cache.delete_manifest("d", "v1")
    watch.settle()
    assert last_of(cache, one.id).state == "done"
    (job,) = cache.jobs()
    assert job.result().progress.files_done == 2
    with pytest.raises(ValueError, match="exclude each other"):
        cache.schedule("d", at=in_hours(-1), order="v1", files=["a"])


def test_a_version_is_made_and_put_in_use_when_its_time_has_come(cache: Cache, watch: Watch) -> None:
    one = cache.schedule("d", at=in_hours(-1), glob="*", manifest="v1")
    assert cache.manifests("d") == []
    watch.settle()
    assert last_of(cache, one.id).state == "done"
    assert cache.listdir("d") == ["a"]
    again = cache.schedule("d/sub", at=in_hours(-1), manifest="v2", use_manifest=False)
    cache.create_manifest("d", "v2")
    (ended,) = watch.settle()
    assert (ended.schedule, ended.state, ended.job) == (again.id, "failed", None)
    assert "'v2'" in ended.reason
    for options in ({"cron": NIGHTLY}, {"after": nightly(cache)}):
        with pytest.raises(ConfigError, match="a version is made once"):
            cache.schedule("d", manifest="v3", **options)  # type: ignore[arg-type]  # each has its own


def test_a_file_list_that_is_gone_is_a_run_that_failed(
    cache: Cache, watch: Watch, clock: WallClock, tmp_path: Path
) -> None:
    one = nightly(cache, files=["a"])
    (tmp_path / "cache/v1/meta/schedules" / one / "names").unlink()
    clock.now = due_of(cache, one)
    (ended,) = watch.settle()
    assert (ended.state, ended.job) == ("failed", None)
    assert "names" in ended.reason
    assert list((tmp_path / "cache/v1/meta/jobs").iterdir()) == []


def test_a_file_list_that_cannot_be_read_leaves_nothing(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nightly(cache, files="/no/such/list")
    assert cache.schedules() == []
    assert list((tmp_path / "cache/v1/meta/schedules").iterdir()) == []


def test_scheduling_the_same_again_changes_nothing(cache: Cache, watch: Watch, tmp_path: Path) -> None:
    at = in_hours(-1)

    def every() -> list[str]:
        return [
            nightly(cache),
            nightly(cache, glob="*"),
            nightly(cache, files=["a"]),
            nightly(cache, files=["b"]),
            cache.schedule("d", cron=NIGHTLY, timezone="Europe/Berlin").id,
            cache.schedule("d", at=at).id,
            cache.schedule("d", after=cache.schedules()[0].id).id,
            cache.schedule("d", after=cache.schedules()[0].id, any_end=True).id,
        ]

    first = every()
    assert len(set(first)) == 8
    assert every() == first
    assert len(list((tmp_path / "cache/v1/meta/schedules").iterdir())) == 2
    watch.settle()
    # What is over can be scheduled anew.
    assert cache.schedule("d", at=at).id not in first


def test_unscheduling(cache: Cache, watch: Watch, clock: WallClock, storage: FaultyStorage) -> None:
    begun, go_on = held(storage)
    first = nightly(cache)
    second = cache.schedule("d/sub", after=first).id
    clock.now = due_of(cache, first)
    watch.watcher.look()
    assert begun.wait(60)
    job = shown(cache, first).job
    assert job is not None
    cache.unschedule(first)
    go_on.set()
    assert cache.job(job).wait(60).ok
    assert watch.settle() == []
    assert shown(cache, second).reason == f"schedule {first} was removed"
    for absent in (first, "", "x", "../x", "caf\u00e9", "s" * 1_000):
        with pytest.raises(ScheduleNotFound, match="there is no schedule"):
            cache.unschedule(absent)


def test_a_turn_that_has_come_is_kept_when_what_it_runs_after_goes(
    cache: Cache, watch: Watch, clock: WallClock
) -> None:
    first = nightly(cache)
    second = cache.schedule("d/sub", after=first).id
    clock.now = due_of(cache, first)
    while shown(cache, second).due is None:
        watch.watcher.look()
        watch.wait_for_runs()
    cache.unschedule(first)
    assert watch.begun() == [second]
    over = shown(cache, second)
    assert (over.runs, over.state, over.reason) == (1, "over", f"schedule {first} was removed")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, ConfigError, "one of at, cron and after"),
        ({"at": datetime(2026, 1, 1), "cron": NIGHTLY}, ConfigError, "one of at, cron and after"),
        ({"at": "2026-01-01"}, ConfigError, "at: is a datetime, not '2026-01-01'"),
        ({"cron": 3}, ConfigError, "cron: is a str"),
        ({"cron": "0 3 * *"}, ConfigError, "write five fields"),
        ({"cron": NIGHTLY, "timezone": "Europe/Nowhere"}, ConfigError, "'Europe/Nowhere'"),
        ({"cron": NIGHTLY, "any_end": True}, ConfigError, "any_end: is for"),
        ({"after": "x", "timezone": "UTC"}, ConfigError, "timezone: is for at and cron"),
        ({"after": "x"}, JobNotFound, "no job or schedule 'x'"),
        ({"after": "caf\u00e9"}, JobNotFound, "no job or schedule"),
        ({"after": "s1"}, ScheduleNotFound, "no schedule 's1'"),
        ({"at": datetime(2026, 1, 1), "dry_run": True}, ConfigError, "dry_run"),
        ({"at": datetime(2026, 1, 1), "rate_limit": 0}, ConfigError, "rate_limit"),
        ({"at": datetime(2026, 1, 1), "colour": "red"}, TypeError, "colour"),
        ({"at": datetime(2026, 1, 1), "glob": "/x", "files": ["a"]}, ValueError, "relative"),
    ],
)
def test_what_cannot_be_scheduled(
    cache: Cache, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        cache.schedule("d", **options)
    assert cache.schedules() == []


def test_a_target_is_checked_when_it_is_scheduled(cache: Cache) -> None:
    with pytest.raises(NotAttached, match="no dataset 'e'"):
        cache.schedule("e", at=in_hours(1))
    with pytest.raises(ValueError, match="contains the part"):
        cache.schedule("d/../x", at=in_hours(1))
