"""A load's process killed, stopped, forked, closed: the job outlives it, and its figures stay honest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.cache.loads.load import LoadJob, LoadResult
from forebay.config import KIB, MIB, Tier
from forebay.errors import NotAttached
from forebay.testing.faulty import FaultyStorage
from tests.faults._child import Child, wait_until
from tests.faults._load_moments import cached_bytes, kill_at_moments, load_bytes, opener

FILES = 400
FILE_BYTES = 20 * KIB
# So slow that a load of all files takes seven seconds, and is caught in the middle of it even by who gets no
# processor for most of them.
SLOW = FILES * FILE_BYTES // 7
# So many files that are cached by then.
SOME = 20

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
def open_cache(tmp_path: Path, memory_path: Path, folder: Path) -> Open:
    """Open the test's cache, in whatever process."""

    def open_one() -> Cache:
        tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
        cache = Cache(tmp_path / "cache", tiers, block_bytes=64 * KIB)
        cache.attach("d", folder.as_uri(), max_age=None)
        return cache

    return open_one


@pytest.fixture
def cache(open_cache: Open) -> Iterator[Cache]:
    with open_cache() as cache:
        yield cache


def load_and_wait(link: Connection, open_cache: Open, slow: int | None, files: list[str] | None) -> str:
    """The body of a child: load, tell the job's id, and see it through."""
    with open_cache() as cache:
        job = cache.load("d", files=files, rate_limit=slow)
        link.send(job.id)
        return job.wait().state


def resume_and_wait(link: Connection, open_cache: Open, job_id: str) -> LoadResult:
    with open_cache() as cache:
        return cache.resume(job_id).wait()


def some_are_done(job: LoadJob, least: int = SOME) -> bool:
    return job.progress().files_done >= least


def requests(cache: Cache) -> int:
    return int(cache.status()["counters"]["source_requests"])


def known(cache: Cache, names: list[str]) -> int:
    """Count the files of which the cache knows what they are."""
    runtime = cache._runtime()
    attached, _ = runtime.locate("d")
    return sum(runtime.lookup.known(attached, name) is not None for name in names)


@pytest.mark.parametrize("listed", [False, True])
def test_killed_and_resumed(open_cache: Open, cache: Cache, folder: Path, listed: bool) -> None:
    names = [f"dir{number % 10}/f{number}" for number in range(FILES)] if listed else None
    with Child(load_and_wait, open_cache, SLOW, names) as child:
        job = cache.job(child.receive())
        assert job.progress().state == "running"
        wait_until(lambda: some_are_done(job), "some files are cached")
        child.kill()
        child.exit_code()
    result = job.wait(10)
    assert (result.ok, result.state) == (False, "interrupted")
    assert [each.progress().state for each in cache.jobs()] == ["interrupted"]
    before, cached = requests(cache), cache.status()["blocks"]
    assert SOME <= cached < FILES
    # Of a file that is not listed the block comes first and then what it is: killed between the two, the
    # process leaves it to be asked about once more, and nothing of it is read.
    asked = FILES - (cached if names is None else known(cache, names))
    resumed = cache.resume(job.id).wait(60)
    assert resumed.ok
    figures = resumed.progress
    assert (figures.files_total, figures.files_skipped, figures.files_done) == (FILES, cached, FILES - cached)
    assert (figures.bytes_skipped, figures.bytes_done) == (cached * FILE_BYTES, (FILES - cached) * FILE_BYTES)
    assert requests(cache) - before == asked
    assert job.progress() == figures
    for number in range(0, FILES, 7):
        name = f"dir{number % 10}/f{number}"
        assert bytes(cache.read(f"d/{name}")) == (folder / name).read_bytes()
    assert requests(cache) - before == asked


def test_killed_between_a_block_and_what_its_file_is(open_cache: Open, cache: Cache) -> None:
    names = [f"dir{number}/f{number}" for number in range(5)]

    def load_and_die(link: Connection) -> None:
        with open_cache() as cache:
            job = cache.load("d", files=names, start=False)
            cache._runtime().lookup.remember = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            link.send(job.id)
            cache.resume(job.id).wait()

    with Child(load_and_die) as child:
        job = cache.job(child.receive())
        child.exit_code()
    assert job.wait(10).state == "interrupted"
    before, cached, loaded = requests(cache), cache.status()["blocks"], load_bytes(cache)
    assert (known(cache, names), cached >= 1) == (0, True)
    figures = cache.resume(job.id).wait(60).progress
    assert (figures.files_skipped, figures.files_done) == (cached, len(names) - cached)
    assert requests(cache) - before == len(names)
    # Not since the beginning: of other files the bytes had come by then, and were not yet cached.
    assert load_bytes(cache) - loaded == (len(names) - cached) * FILE_BYTES


def test_killed_again_and_again(open_cache: Open, cache: Cache) -> None:
    job = cache.load("d", rate_limit=SLOW, start=False)
    for round_number in range(1, 4):
        with Child(resume_and_wait, open_cache, job.id) as child:
            wait_until(lambda: cache.status()["blocks"] > 60 * round_number, "more files are cached")  # noqa: B023
            child.kill()
            child.exit_code()
        assert job.wait(10).state == "interrupted"
    cached = cache.status()["blocks"]
    with Child(resume_and_wait, open_cache, job.id) as child:
        result = child.result()
    assert result.ok
    # What a killed process was about to count is cached all the same, and so is skipped.
    assert result.progress.files_skipped >= cached
    assert result.progress.files_settled == FILES


def test_killed_at_random_moments(tmp_path: Path, memory_path: Path) -> None:
    kill_at_moments(opener(tmp_path, memory_path), tmp_path / "data", moments=5, seed=1)


def test_killed_in_the_middle_of_a_large_file(tmp_path: Path, memory_path: Path) -> None:
    data = os.urandom(15 * MIB + 3)
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "file").write_bytes(data)

    def open_one() -> Cache:
        # So large that the file may lie in one piece.
        tiers = [Tier(str(memory_path), 256 * MIB, "MEM")]
        cache = Cache(tmp_path / "cache", tiers, block_bytes=64 * KIB)
        cache.attach("d", (tmp_path / "large").as_uri(), max_age=None)
        return cache

    with open_one() as cache:
        # The first request is not paid for before it is made, the second is, for a quarter of a minute.
        with Child(load_and_wait, open_one, 256 * KIB, None) as child:
            job_id = child.receive()
            wait_until(lambda: cache.status()["blocks"] >= 64, "the first request is cached")
            child.kill()
            child.exit_code()
        assert cache.job(job_id).wait(10).state == "interrupted"
        assert cache.check().ok
        cached, loaded = cached_bytes(cache), load_bytes(cache)
        # A block is cached first and counted then: killed between the two, the process has not counted it.
        assert cached - 64 * KIB <= loaded <= cached
        result = cache.load("d").wait(60)
        assert result.ok
        assert load_bytes(cache) - loaded == len(data) - cached
        assert bytes(cache.read("d/file")) == data
        assert cache.check().ok


def test_killed_while_it_lists(tmp_path: Path, memory_path: Path) -> None:
    def open_one() -> Cache:
        return Cache(tmp_path / "cache", tiers, block_bytes=64 * KIB, schemes=storage.schemes())

    def stall(link: Connection) -> None:
        storage.script("list", None, lambda: link.recv())
        with open_one() as cache:
            job = cache.load("d")
            wait_until(lambda: job.progress().files_done == 5, "what was listed is loaded")
            link.send(job.id)
            job.wait()

    tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
    storage = FaultyStorage({f"f{number}": b"x" * 10 for number in range(5)} | {"below/f": b"y" * 10})
    with open_one() as cache:
        cache.attach("d", "faulty://x", max_age=None)
        with Child(stall) as child:
            job = cache.job(child.receive())
            assert job.progress().files_total is None
            child.kill()
            child.exit_code()
        assert job.wait(10).state == "interrupted"
        figures = cache.resume(job.id).wait(60).progress
        assert (figures.files_total, figures.files_skipped, figures.files_done) == (6, 5, 1)


def test_cancelled_from_another_process(open_cache: Open, cache: Cache) -> None:
    with Child(load_and_wait, open_cache, SLOW, None) as child:
        job = cache.job(child.receive())
        wait_until(lambda: some_are_done(job), "some files are cached")
        job.cancel()
        assert job.wait(30).state == "cancelled"
        assert child.result() == "cancelled"
    settled = job.progress().files_settled
    assert SOME <= settled < FILES
    assert cache.resume(job.id).wait(60).ok


def test_only_one_runs_a_job(open_cache: Open, cache: Cache) -> None:
    with Child(load_and_wait, open_cache, SLOW, None) as child:
        job_id = child.receive()
        other = cache.resume(job_id)
        wait_until(lambda: some_are_done(other), "some files are cached")
        assert other.wait(60).ok
        assert child.result() == "done"
    assert cache.status()["counters"]["source_requests"] == FILES


def test_a_stopped_runner_still_runs(open_cache: Open, cache: Cache) -> None:
    with Child(load_and_wait, open_cache, SLOW, None) as child:
        job = cache.job(child.receive())
        wait_until(lambda: some_are_done(job), "some files are cached")
        child.stop()
        assert cache.resume(job.id).progress().state == "running"
        with pytest.raises(TimeoutError):
            job.wait(0.3)
        child.resume()
        assert child.result() == "done"
    assert job.wait(10).ok


def test_a_child_of_the_runner_keeps_nothing_alive(open_cache: Open, cache: Cache) -> None:
    """A DataLoader's worker may outlive the process that began a load."""

    def load_and_fork(link: Connection) -> None:
        cache = open_cache()
        job = cache.load("d", rate_limit=SLOW)
        pid = os.fork()
        if pid == 0:
            link.send((job.id, job.wait(60).state))
            link.recv()
            os._exit(0)
        job.wait()

    with Child(load_and_fork) as runner:
        job = cache.job(wait_for_job(cache))
        wait_until(lambda: some_are_done(job), "some files are cached")
        runner.kill()
        runner.exit_code()
        assert job.wait(10).state == "interrupted"
        # The worker, whose copy of the job follows it through its files, sees the same.
        assert runner.link.recv() == (job.id, "interrupted")
        runner.link.send("end")
    assert cache.resume(job.id).wait(60).ok


def wait_for_job(cache: Cache) -> str:
    wait_until(cache.jobs, "the job is made")
    return cache.jobs()[0].id


def test_closing_the_cache_interrupts_what_it_runs(open_cache: Open, cache: Cache) -> None:
    with open_cache() as other:
        job = other.load("d", rate_limit=SLOW)
        wait_until(lambda: some_are_done(job, 5), "some files are cached")
    seen = cache.job(job.id)
    assert seen.wait(10).state == "interrupted"
    assert seen.progress().files_done >= 5
    assert cache.resume(job.id).wait(60).ok


EXIT_WHILE_LOADING = """
import sys
from forebay.cache import Cache
cache = Cache(sys.argv[1])
job = cache.load("d", rate_limit=int(sys.argv[2]))
while job.progress().files_done < 20:
    pass
print(job.id)
"""


def test_an_interpreter_that_ends_interrupts_its_loads(cache: Cache) -> None:
    script = [sys.executable, "-c", EXIT_WHILE_LOADING, cache.path, str(SLOW)]
    ended = subprocess.run(script, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    job = cache.job(ended.stdout.strip())
    assert job.wait(10).state == "interrupted"
    # What was written down last, a quarter of a second before the end at most.
    assert job.progress().files_done < FILES
    assert job.progress().eta is None
    assert cache.resume(job.id).wait(60).progress.files_skipped >= SOME


def test_a_dataset_that_is_detached_ends_its_loads(cache: Cache, folder: Path) -> None:
    job = cache.load("d", start=False)
    cache.detach("d")
    result = cache.resume(job.id).wait(60)
    assert (result.state, "no dataset 'd'" in result.reason) == ("failed", True)
    cache.attach("d", folder.as_uri())
    result = cache.resume(job.id).wait(60)
    assert (result.state, "was detached since" in result.reason) == ("failed", True)
    with pytest.raises(NotAttached):
        cache.load("e")


def test_a_dataset_that_is_detached_meanwhile_stops_its_load(open_cache: Open, cache: Cache) -> None:
    with Child(load_and_wait, open_cache, SLOW, None) as child:
        job = cache.job(child.receive())
        wait_until(lambda: some_are_done(job), "some files are cached")
        cache.detach("d")
        assert child.result() == "failed"
    result = job.wait(10)
    assert (result.ok, "no dataset 'd'" in result.reason) == (False, True)
    assert result.progress.files_settled < FILES


def test_what_another_process_fetches_is_fetched_once(open_cache: Open, cache: Cache) -> None:
    with (
        Child(load_and_wait, open_cache, None, None) as first,
        Child(load_and_wait, open_cache, None, None) as second,
    ):
        assert (first.result(), second.result()) == ("done", "done")
    counters = cache.status()["counters"]
    # What one may not keep, since the other has had no processor in the midst of the index, both fetch.
    again = counters["not_admitted"] + counters["flight_stalled"]
    assert FILES <= requests(cache) <= FILES + again


def test_a_cancelled_load_stops_at_once(cache: Cache) -> None:
    job = cache.load("d", rate_limit=KIB)
    threading.Timer(0.2, job.cancel).start()
    result = job.wait(10)
    assert (result.ok, result.state) == (False, "cancelled")
    assert cache.job(job.id).wait().state == "cancelled"
