"""Watchers killed, stopped and told to end: each run happens once, and is seen through by whoever is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event

import pytest

from forebay.cache import Cache
from forebay.cache.loads.load import LoadJob
from forebay.cache.schedules.schedule import Schedule
from forebay.config import KIB, MIB, Tier
from forebay.errors import StoreBusy
from tests.faults._child import Child, wait_until

FILES = 400
FILE_BYTES = 20 * KIB
# So slow that a load of all files takes so many seconds, and is caught in the middle of it.
SEVEN_S = FILES * FILE_BYTES // 7
MINUTE = FILES * FILE_BYTES // 60

Open = Callable[[], Cache]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for number in range(FILES):
        path = root / f"dir{number % 10}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(FILE_BYTES))
    return root


@pytest.fixture
def open_cache(tmp_path: Path, memory_path: Path) -> Open:
    """Open the test's cache, in whatever process."""
    return lambda: Cache(tmp_path / "cache", [Tier(str(memory_path), 64 * MIB, "MEM")], block_bytes=64 * KIB)


@pytest.fixture
def cache(open_cache: Open, folder: Path) -> Iterator[Cache]:
    with open_cache() as cache:
        cache.attach("d", folder.as_uri(), max_age=None)
        yield cache


def watching(cache: Cache) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "forebay", "--cache-dir", cache.path, "load", "--watch"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def now() -> datetime:
    return datetime.now(UTC)


def only(cache: Cache) -> Schedule:
    (one,) = cache.schedules()
    return one


def job_of(cache: Cache, least: int = 1) -> LoadJob:
    """Wait until the one schedule has begun its run, and that has cached so many files; return its job."""
    wait_until(lambda: only(cache).job, "the run is begun")
    job = cache.job(only(cache).job or "")
    wait_until(lambda: job.progress().files_done >= least, "some files are cached")
    return job


def requests(cache: Cache) -> int:
    return int(cache.status()["counters"]["source_requests"])


def end(watcher: subprocess.Popen[str]) -> list[str]:
    """Tell a watcher to end, and return what it told of each run."""
    watcher.terminate()
    out, err = watcher.communicate(timeout=60)
    assert (watcher.returncode, err) == (0, "")
    return [line.split(": ", 1)[1] for line in out.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_watcher_in_good_order(cache: Cache, number: signal.Signals) -> None:
    cache.schedule("d", at=now(), rate_limit=MINUTE)
    with watching(cache) as first:
        job = job_of(cache)
        # Some senders tell the process and then its group.
        first.send_signal(number)
        first.send_signal(number)
        out, err = first.communicate(timeout=60)
    assert (first.returncode, err) == (0, "")
    assert out.endswith(f": begun ({job.id})\n")
    assert job.wait(10).state == "interrupted"
    assert only(cache).state == "running"
    assert not cache.is_watched()
    with watching(cache) as second:
        wait_until(lambda: job.result().state == "running", "another goes on with it")
        job.cancel()
        wait_until(lambda: only(cache).state == "over", "it has ended")
        assert end(second) == [f"resumed ({job.id})", f"ended cancelled: cancelled ({job.id})"]
    assert [each.id for each in cache.jobs()] == [job.id]


def test_a_killed_watcher_is_followed_by_another(cache: Cache) -> None:
    cache.schedule("d", at=now(), rate_limit=SEVEN_S)
    watcher = cache.watcher()
    with watching(cache) as first:
        job = job_of(cache, 20)
        # One that watches as well leaves the run alone while somebody runs it.
        assert not watcher.look()
        first.kill()
        first.communicate(timeout=60)
    wait_until(lambda: watcher.look() or only(cache).state == "over", "the other sees it through")
    assert job.wait(10).ok
    assert [each.id for each in cache.jobs()] == [job.id]
    # What had come when it was killed came once; of what was under way a little may have come twice.
    assert FILES <= requests(cache) < FILES + 64


def test_a_stopped_watcher_keeps_its_run_and_no_other(cache: Cache) -> None:
    slow = cache.schedule("d", at=now(), rate_limit=MINUTE).id
    with watching(cache) as first:
        job = job_of(cache)
        other = schedule_beside_stopped(cache, first)
        with watching(cache) as second:
            wait_until(lambda: state_of(cache, other) == "over", "the other runs")
            assert job.result().state == "running"
            assert len(end(second)) == 2
        first.send_signal(signal.SIGCONT)
        job.cancel()
        wait_until(lambda: state_of(cache, slow) == "over", "the first goes on")
        assert len(end(first)) == 2
    assert all(one.runs == 1 for one in cache.schedules())


def schedule_beside_stopped(cache: Cache, watcher: subprocess.Popen[str]) -> str:
    """Stop a watcher and schedule another load; return its id."""
    while True:
        watcher.send_signal(signal.SIGSTOP)
        try:
            return cache.schedule("d/dir0", at=now()).id
        except StoreBusy:
            # In the midst of writing metadata it is in everybody's way: this is not about that.
            watcher.send_signal(signal.SIGCONT)


def state_of(cache: Cache, schedule_id: str) -> str:
    (one,) = [one for one in cache.schedules() if one.id == schedule_id]
    return one.state


def watch_and_tell(link: Connection, open_cache: Open) -> list[str]:
    """The body of a child: watch until it is told to end, and return the schedules that it began."""
    begun: list[str] = []
    with open_cache() as cache:
        ending = Event()
        watcher = cache.watcher(
            lambda event: begun.append(event.schedule) if event.event == "begun" else None
        )
        link.send(os.getpid())
        while not link.poll():
            if not watcher.look():
                ending.wait(0.01)
    return begun


def test_watchers_of_several_pid_namespaces_share_the_runs(cache: Cache, open_cache: Open) -> None:
    ids = [
        cache.schedule("d", glob=f"dir{number}/*", at=now() + timedelta(seconds=2)).id for number in range(10)
    ]
    ids += [cache.schedule("d", glob=f"none{number}", after=ids[number]).id for number in range(10)]
    with (
        Child(watch_and_tell, open_cache, first_of_namespace=True) as first,
        Child(watch_and_tell, open_cache, first_of_namespace=True) as second,
        Child(watch_and_tell, open_cache) as third,
    ):
        children = (first, second, third)
        assert [child.receive() == 1 for child in children] == [True, True, False]
        wait_until(lambda: {one.state for one in cache.schedules()} == {"over"}, "all have run")
        for child in children:
            child.send("end")
        begun = [one for child in children for one in child.result()]
    assert sorted(begun) == sorted(ids)
    assert len(cache.jobs()) == len(ids)
    assert all(job.result().ok for job in cache.jobs())


KILLS = 50
HURRIED = 3000.0  # seconds of the watchers' clock in one of ours


def watch_hurried(link: Connection, open_cache: Open, began_s: float) -> None:
    """The body of a child: watch by a clock that runs fast, until killed."""
    with open_cache() as cache:
        watcher = cache.watcher(now=lambda: began_s + (time.time() - began_s) * HURRIED)
        link.send("watching")
        while True:
            watcher.look()


def test_whenever_watchers_are_killed_each_run_is_one_job(
    cache: Cache, open_cache: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours pass in seconds, two watchers watch, and one is killed at a random moment, again and again."""
    monkeypatch.setattr("forebay.cache.loads.jobs._KEPT_ENDED_MAX", 100_000)
    rng, began_s = random.Random(7), time.time()
    first = cache.schedule("d/dir0", cron="* * * * *", timezone="UTC").id
    second = cache.schedule("d/dir1", after=first).id
    every = cache.schedule("d/dir2", cron="*/2 * * * *", timezone="UTC").id
    watchers = [Child(watch_hurried, open_cache, began_s) for _ in range(2)]
    try:
        for _ in range(KILLS):
            victim = watchers.pop(0)
            victim.receive()
            time.sleep(rng.random() * 0.1)
            victim.kill()
            victim.exit_code()
            victim.__exit__(None, None, None)
            watchers.append(Child(watch_hurried, open_cache, began_s))
    finally:
        for each in watchers:
            each.__exit__(None, None, None)
    passed = (time.time() - began_s) * HURRIED / 60
    with cache:
        watcher = cache.watcher(now=lambda: began_s)
        while any(one.job for one in cache.schedules()):
            watcher.look()
        by_id = {one.id: one for one in cache.schedules()}
        jobs = [job.request.target for job in cache.jobs()]
    assert all(one.last is not None and one.last.state == "done" for one in by_id.values())
    # Every claim made one job, and every job was of a claim.
    assert jobs.count("d/dir0") == by_id[first].runs
    assert jobs.count("d/dir1") == by_id[second].runs <= by_id[first].runs
    assert jobs.count("d/dir2") == by_id[every].runs
    assert 1 <= by_id[first].runs <= passed + 1
    assert 1 <= by_id[every].runs <= passed / 2 + 1
