"""Watchers of schedules: several at once, closed and replaced, before full disks, and what they keep."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.cache.loads.run import LoadRun
from forebay.errors import Closed
from forebay.testing.faulty import FaultyStorage
from tests.faults._child import wait_until
from tests.integration._schedules import (
    WallClock,
    Watch,
    due_of,
    held,
    in_hours,
    nightly,
    shown,
)
from tests.integration._sites import OpenCache


def test_one_that_may_only_read_can_look(cache: Cache, open_cache: OpenCache, tmp_path: Path) -> None:
    one = nightly(cache)
    reader = Cache(tmp_path / "cache", read_only=True)
    with reader:
        assert [each.id for each in reader.schedules()] == [one]
        with pytest.raises(PermissionError, match="read only"):
            reader.watcher()
        with pytest.raises(PermissionError, match="read only"):
            nightly(reader)
        with pytest.raises(PermissionError, match="read only"):
            reader.unschedule(one)


def test_two_watchers_run_each_once(
    cache: Cache, open_cache: OpenCache, storage: FaultyStorage, clock: WallClock
) -> None:
    watches = [Watch(cache, clock), Watch(open_cache(schemes=storage.schemes()), clock)]
    ids = {cache.schedule("d", glob=f"x{number}", at=in_hours(-1)).id for number in range(12)}
    threads = [threading.Thread(target=watch.settle) for watch in watches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begun = [event.schedule for watch in watches for event in watch.events if event.event == "begun"]
    assert sorted(begun) == sorted(ids)
    assert len(cache.jobs()) == 12
    assert all(one.runs == 1 and one.state == "over" for one in cache.schedules())


def test_the_job_of_a_closed_watcher_is_gone_on_with(
    cache: Cache, open_cache: OpenCache, storage: FaultyStorage, clock: WallClock
) -> None:
    begun, go_on = held(storage)
    first = open_cache(schemes=storage.schemes())
    one = nightly(first)
    clock.now = due_of(cache, one)
    Watch(first, clock).watcher.look()
    assert begun.wait(60)
    (run,) = first._runtime().loads._running()
    closing = threading.Thread(target=first.close)
    closing.start()
    # Gone on with before, it might come to its end.
    wait_until(run._stop.is_set, "the run is interrupted")
    go_on.set()
    closing.join()
    left = shown(cache, one)
    assert left.state == "running"
    assert left.job is not None
    assert cache.job(left.job).result().state == "interrupted"
    watch = Watch(cache, clock)
    assert [(event.event, event.job) for event in watch.settle()] == [
        ("resumed", left.job),
        ("ended", left.job),
    ]
    assert shown(cache, one).runs == 1


def test_a_job_that_ended_meanwhile_is_not_taken_over(cache: Cache) -> None:
    loads = cache._runtime().loads
    job = cache.load("d/none", wait=True)
    assert job.result().state == "failed"
    assert not loads.take_over(job.id)
    assert cache.job(job.id).result().state == "failed"
    with pytest.raises(FileNotFoundError):
        loads.take_over("none")


def test_a_wish_to_cancel_is_not_lost_while_a_run_begins(
    cache: Cache, open_cache: OpenCache, storage: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = cache.load("d", start=False)
    other = open_cache(schemes=storage.schemes()).job(job.id)
    start = LoadRun.start

    def cancel_first(run: LoadRun) -> None:
        other.cancel()
        start(run)

    with monkeypatch.context() as patch:
        patch.setattr(LoadRun, "start", cancel_first)
        assert cache.resume(job.id).wait(60).state == "cancelled"
    assert cache.resume(job.id).wait(60).ok


def test_a_wish_to_cancel_outlives_whoever_did_not_see_it(
    cache: Cache, watch: Watch, clock: WallClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = nightly(cache)
    clock.now = due_of(cache, one)
    runtime = cache._runtime()
    with monkeypatch.context() as patch:
        patch.setattr(runtime.loads, "take_over", lambda job_id: False)  # as if killed after the claim
        watch.watcher.look()
    job = shown(cache, one).job
    assert job is not None
    runtime.jobs.folder(job).put("cancel", {"id": "x"})
    assert [event.state for event in Watch(cache, clock).settle()] == [None, "cancelled"]
    # Whoever resumes it wants it to run.
    assert cache.resume(job).wait(60).ok


def test_a_job_whose_folder_is_gone_ends_its_run(
    cache: Cache, watch: Watch, clock: WallClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = nightly(cache)
    clock.now = due_of(cache, one)
    loads, jobs = cache._runtime().loads, cache._runtime().jobs
    with monkeypatch.context() as patch:
        patch.setattr(loads, "take_over", lambda job_id: False)  # as if killed after the claim
        watch.watcher.look()
    job = shown(cache, one).job
    assert job is not None
    jobs.folder(job).remove()
    (ended,) = Watch(cache, clock).settle()
    assert (ended.event, ended.state) == ("ended", "failed")
    assert "No such file" in ended.reason


def test_what_cannot_be_begun_is_tried_again_and_told_of_once(
    cache: Cache,
    watch: Watch,
    clock: WallClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = nightly(cache), cache.schedule("d/a", at=in_hours(0)).id
    clock.now = due_of(cache, one)
    schedules = cache._runtime().schedules
    prepare = schedules.prepare_job

    def full(record: Any) -> Any:
        if record.id == one:
            raise OSError(28, "No space left on device", "/x")
        return prepare(record)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(schedules, "prepare_job", full)
        assert watch.begun() == [other]
        for _ in range(5):
            assert watch.settle() == []
    assert caplog.text.count("No space left on device") == 1
    assert shown(cache, one).runs == 0
    assert watch.begun() == [one]


def test_a_run_that_stops_without_an_end_rests(
    cache: Cache, watch: Watch, clock: WallClock, storage: FaultyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = nightly(cache)
    clock.now = due_of(cache, one)
    loads = cache._runtime().loads

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "/x")

    with monkeypatch.context() as patch:
        patch.setattr(loads._jobs, "end", full)
        watch.watcher.look()
        job = shown(cache, one).job
        assert job is not None
        assert cache.job(job).wait(60).state == "interrupted"
    looks = 0
    while watch.events[-1].event != "resumed":
        watch.watcher.look()
        looks += 1
    assert looks == 60
    assert [event.state for event in watch.settle()] == ["done"]


def test_watching_until_it_is_told_to_end(cache: Cache) -> None:
    one = cache.schedule("d", at=in_hours(-1))
    ending, ended = threading.Event(), threading.Event()
    watcher = cache.watcher(lambda event: ended.set() if event.event == "ended" else None)
    thread = threading.Thread(target=watcher.run, args=(ending,))
    assert not cache.is_watched()
    thread.start()
    assert ended.wait(60)
    assert cache.is_watched()
    ending.set()
    thread.join()
    assert not cache.is_watched()
    assert shown(cache, one.id).state == "over"


def test_a_watcher_of_a_closed_cache_ends(open_cache: OpenCache, storage: FaultyStorage) -> None:
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x")
    watcher = cache.watcher()
    cache.close()
    with pytest.raises(Closed):
        watcher.run(threading.Event())
    with pytest.raises(Closed):
        cache.schedules()


def test_what_is_told_is_told_outside(cache: Cache) -> None:
    """What whoever is told of events raises is no error of a schedule."""

    def full(event: object) -> None:
        raise BrokenPipeError

    cache.schedule("d", at=in_hours(-1))
    with pytest.raises(BrokenPipeError):
        cache.watcher(full).look()


def test_the_last_that_are_over_are_kept(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.cache.schedules.records._KEPT_OVER_MAX", 3)
    watch = Watch(cache, time.time)
    ids = []
    for number in range(6):
        ids.append(cache.schedule("d", glob=f"x{number}", at=in_hours(-1)).id)
        watch.settle()
    waiting = nightly(cache)
    assert [one.id for one in cache.schedules()] == [*ids[-3:], waiting]


def test_a_job_that_a_schedule_looks_at_is_kept(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.cache.loads.jobs._KEPT_ENDED_MAX", 2)
    job = cache.load("d", wait=True)
    one = cache.schedule("d/sub", after=job.id).id
    for _ in range(4):
        cache.load("d", wait=True)
    assert job.id in {each.id for each in cache.jobs()}
    watch = Watch(cache, time.time)
    assert watch.begun() == [one]
    for _ in range(4):
        cache.load("d", wait=True)
    assert job.id not in {each.id for each in cache.jobs()}


def test_a_job_that_is_gone_ends_what_waits_for_it(cache: Cache) -> None:
    job = cache.load("d", wait=True)
    one = cache.schedule("d/sub", after=job.id).id
    then = cache.schedule("d/a", after=one).id
    cache._runtime().metadata.catalog.delete_row("job", job.id)
    assert shown(cache, one).reason == f"there is no job {job.id} any more"
    assert Watch(cache, time.time).settle() == []
    assert shown(cache, one).state == shown(cache, then).state == "over"


def test_plain_data(cache: Cache, watch: Watch) -> None:
    one = cache.schedule("d", at=in_hours(-1))
    watch.settle()
    told = shown(cache, one.id).to_json()
    assert told["request"]["target"] == "d"
    assert told["last"]["state"] == "done"
    assert watch.events[0].to_json()["event"] == "begun"
