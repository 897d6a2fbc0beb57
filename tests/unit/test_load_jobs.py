"""The records and folders of loads: what is kept, how a job's state is told, who may run it."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.cache.loads.jobs import JobRecord, Jobs, LoadRequest, new_job_id
from forebay.cache.loads.progress import Progress
from forebay.cache.loads.spool import JobFolder, json_line
from forebay.errors import JobNotFound
from forebay.meta import Metadata


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    with Metadata(tmp_path / "meta") as metadata:
        yield Jobs(metadata.catalog, tmp_path / "meta" / "jobs")


def make(jobs: Jobs, job_id: str = "a", created: float = 1.0) -> JobRecord:
    record = JobRecord(job_id, LoadRequest("d/x", glob="*", rate_limit=5), 7, created)
    jobs.folder(job_id).make()
    jobs.put(record)
    return record


def test_a_record_is_read_back(jobs: Jobs) -> None:
    record = make(jobs)
    assert jobs.get("a") == record
    assert jobs.all() == [record]
    for absent in ("b", "", "../a", "a/b", "caf\u00e9", "x" * 1_000):
        with pytest.raises(JobNotFound, match="see `forebay jobs`"):
            jobs.get(absent)


def test_what_a_later_version_added_is_left_out(jobs: Jobs) -> None:
    record = make(jobs)
    value = record.to_json()
    value["colour"] = "red"
    value["request"]["shape"] = "round"
    assert JobRecord.from_json(value) == record


def test_the_state_of_a_job_is_told_by_its_record_and_lock(jobs: Jobs) -> None:
    record = make(jobs)
    folder = jobs.folder("a")
    assert jobs.state(record) == (record, "queued")
    lock = folder.try_lock()
    assert lock is not None
    assert jobs.state(record) == (record, "running")
    assert folder.try_lock() is None
    folder.put("progress", Progress("running").to_json())
    lock.release()
    lock.release()
    assert jobs.state(record) == (record, "interrupted")
    ended = jobs.end(record, "incomplete", "why", Progress("incomplete", files_failed=1))
    assert jobs.state(record) == (ended, "incomplete")
    assert jobs.get("a").progress["files_failed"] == 1


def test_what_was_put_meanwhile_is_not_dropped(jobs: Jobs) -> None:
    make(jobs)
    folder = jobs.folder("a")
    folder.drop_if("cancel", {"id": "1"})
    folder.put("cancel", {"id": "1"})
    folder.drop_if("cancel", {"id": "1"})
    assert folder.get("cancel") is None
    folder.put("cancel", {"id": "2"})
    folder.drop_if("cancel", {"id": "1"})
    assert folder.get("cancel") == {"id": "2"}
    assert {path.name for path in folder.path.iterdir()} == {"cancel"}


def test_a_lock_ends_with_its_process(jobs: Jobs) -> None:
    make(jobs)
    folder = jobs.folder("a")
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        held = folder.try_lock()
        os.write(writer, b"held" if held is not None else b"none")
        time.sleep(60)
        os._exit(0)
    assert os.read(reader, 4) == b"held"
    assert folder.is_running()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert not folder.is_running()
    os.close(reader)
    os.close(writer)


def test_a_child_of_the_runner_does_not_keep_the_lock(jobs: Jobs) -> None:
    make(jobs)
    folder = jobs.folder("a")
    lock = folder.try_lock()
    assert lock is not None
    begun, end = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(begun[1], b"x")
        os.read(end[0], 1)
        os._exit(0)
    assert os.read(begun[0], 1) == b"x"
    assert folder.is_running()
    lock.release()
    assert not folder.is_running()
    os.write(end[1], b"x")
    os.waitpid(pid, 0)
    for descriptor in (*begun, *end):
        os.close(descriptor)


def test_old_jobs_that_have_ended_are_removed_above_a_bound(jobs: Jobs) -> None:
    open_one = make(jobs, "open", 0.0)
    for number in range(103):
        record = make(jobs, f"n{number:03}", float(number))
        jobs.end(record, "done", "", Progress("done"))
    jobs.prune()
    left = [record.id for record in jobs.all()]
    assert left == ["open", *(f"n{number:03}" for number in range(3, 103))]
    assert not jobs.folder("n002").path.exists()
    assert jobs.folder("n003").path.exists()
    assert jobs.get("open") == open_one


def test_a_folder_without_a_record_is_removed_once_it_is_old(jobs: Jobs) -> None:
    for name in ("old", "young"):
        jobs.folder(name).make()
    long_ago = time.time() - 2 * 86_400
    os.utime(jobs.folder("old").path, (long_ago, long_ago))
    jobs.prune()
    assert not jobs.folder("old").path.exists()
    assert jobs.folder("young").path.exists()


def test_ids_differ_and_sort_by_time() -> None:
    ids = [new_job_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert [name[:15] for name in ids] == sorted(name[:15] for name in ids)


def test_a_folder_is_private_or_the_groups(tmp_path: Path) -> None:
    private = JobFolder(tmp_path / "jobs" / "p")
    private.make()
    private.put("progress", {})
    assert stat.S_IMODE(private.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((private.path / "progress").stat().st_mode) == 0o600
    shared = JobFolder(tmp_path / "shared" / "s", os.getgid())
    shared.make()
    with shared.append("failures") as file:
        file.write("\n")
    assert stat.S_IMODE(shared.path.stat().st_mode) == 0o2770
    assert stat.S_IMODE((shared.path / "failures").stat().st_mode) == 0o660
    with pytest.raises(FileExistsError):
        shared.make()


def test_a_line_that_a_crash_cut_short_is_as_good_as_none(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs" / "a")
    folder.make()
    assert list(folder.lines("list")) == []
    with folder.create("list") as file:
        file.write(json_line([1, "caf\udce9\n"]))
        file.write('[2, "cut')
    assert list(folder.lines("list")) == [[1, "caf\udce9\n"]]
    with folder.append("list") as file:
        file.write(json_line([3]))
    assert list(folder.lines("list")) == [[1, "caf\udce9\n"], [3]]


def test_a_small_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "jobs" / "a")
    folder.make()
    assert folder.get("progress") is None
    folder.put("progress", {"a": 1})
    folder.put("progress", {"b": 2})
    assert folder.get("progress") == {"b": 2}
    (folder.path / "progress").write_bytes(b"\0\0")
    assert folder.get("progress") is None
    folder.drop("progress")
    folder.drop("progress")
    folder.remove()
    folder.remove()
