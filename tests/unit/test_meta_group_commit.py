"""Group commit: what threads write at the same time is one transaction, and each has its own answer."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from forebay.errors import Closed, StoreBusy
from forebay.meta import Entry, Metadata
from forebay.meta.entries import Entries
from forebay.meta.environment import Environment, Transaction
from forebay.meta.group_commit import GroupCommit
from forebay.meta.write import Write
from tests.faults._child import wait_until

THREADS = 8


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Entries]:
    with Metadata(tmp_path / "meta") as opened:
        # However long the threads take to come together.
        monkeypatch.setattr(opened.entries._group, "_patience_s", 60.0)
        yield opened.entries


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as threads:
        yield threads


def entry(path: str, version: str = "v", checked_ns: int = 1) -> Entry:
    return Entry(path, 7, 0, version, False, checked_ns)


def putting(path: str) -> Callable[[Write], None]:
    return lambda write: write.put([entry(path)])


@contextmanager
def gathered(group: GroupCommit, count: int) -> Iterator[None]:
    """Hold the turn while the body has threads write, until so many have come: one that leads, and others."""
    with group._environment.writing():
        yield
        wait_until(lambda: group._leader is not None, "one that leads")
        wait_until(lambda: len(group._brought) == count - 1, "the others")


def test_what_threads_write_at_the_same_time_is_one_commit(
    entries: Entries, pool: ThreadPoolExecutor
) -> None:
    paths = [f"d{number % 3}/{number}" for number in range(THREADS)]
    assert entries.put(1, [entry(path, "old") for path in paths])
    before = entries._environment.last_commit()
    with gathered(entries._group, THREADS):
        futures = [pool.submit(entries.put, 1, [entry(path, "new", 2)]) for path in paths]
    for path, future in zip(paths, futures, strict=True):
        written = future.result()
        assert written.complete
        assert [(stale.path, stale.version) for stale in written.replaced] == [(path, "old")]
    assert [entries.get(1, path) for path in paths] == [entry(path, "new", 2) for path in paths]
    assert entries._environment.last_commit() == before + 1


def test_datasets_are_told_apart_in_one_commit(entries: Entries, pool: ThreadPoolExecutor) -> None:
    for number in (1, 2):
        assert entries.put(number, [entry("a", "old")])
    changes = {number: entries.changes(number) for number in (1, 2, 3)}
    with gathered(entries._group, 4):
        futures: list[Future[object]] = [
            pool.submit(entries.put, 1, [entry("a", "new", 2)]),
            pool.submit(entries.forget, 2, "a"),
            pool.submit(entries.note_absent, 3, "b", 2),
            pool.submit(entries.put_with_above, 3, entry("c/d")),
        ]
    for future in futures:
        future.result()
    assert entries.get(1, "a") == entry("a", "new", 2)
    assert entries.get(2, "a") is None
    assert entries.absent_ns(3, "b") == 2
    assert entries.get(3, "c", directories=True) is not None
    for number in (1, 2):
        assert entries.changes(number) > changes[number]
        assert entries.counter(number).load() == entries.changes(number)
    assert {stale.dataset_id for stale in entries.stale(9)} == {1, 2}


@pytest.mark.parametrize("error", [ValueError("bad"), lmdb.MapFullError("full"), MemoryError()])
def test_one_that_fails_has_its_own_error_and_the_others_are_written(
    entries: Entries, pool: ThreadPoolExecutor, error: Exception
) -> None:
    def fail(write: Write) -> None:
        write.put([entry("never")])
        raise error

    group = entries._group
    with gathered(group, THREADS):
        failing = pool.submit(group.write, 1, fail)
        futures = [pool.submit(group.write, 1, putting(str(number))) for number in range(1, THREADS)]
    with pytest.raises(type(error)):
        failing.result()
    for future in futures:
        assert not future.result().has_skipped
    assert all(entries.get(1, str(number)) == entry(str(number)) for number in range(1, THREADS))
    assert entries.get(1, "never") is None
    assert (group._leader, group._brought) == (None, [])


def test_a_wait_in_vain_is_one_for_all_who_wait(
    entries: Entries, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, waits = entries._group, list[float]()

    def busy(_: Environment, patience_s: float, *, is_hasty: bool) -> Transaction:
        waits.append(patience_s)
        wait_until(lambda: len(group._brought) == THREADS - 1, "the others")
        raise StoreBusy("a process is stopped")

    with monkeypatch.context() as patch:
        patch.setattr(Environment, "writing", busy)
        futures = [pool.submit(group.write, 1, putting(str(number))) for number in range(THREADS)]
        for future in futures:
            with pytest.raises(StoreBusy, match="stopped"):
                future.result()
    assert len(waits) == 1
    assert group.write(1, putting("a")).replaced == []


def test_the_closed_environment_is_everybodys_error(
    tmp_path: Path, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Metadata(tmp_path / "meta") as metadata:
        group = metadata.entries._group
        futures: list[Future[Write]] = []
        real = Environment.writing

        def late(environment: Environment, patience_s: float, *, is_hasty: bool) -> Transaction:
            wait_until(lambda: len(futures) == 2 and (metadata.entries._environment._handle is None), "close")
            return real(environment, patience_s, is_hasty=is_hasty)

        monkeypatch.setattr(Environment, "writing", late)
        futures += [pool.submit(group.write, 1, putting("a")), pool.submit(group.write, 1, putting("b"))]
        wait_until(lambda: len(group._brought) == 1, "both")
    for future in futures:
        with pytest.raises(Closed):
            future.result()


def test_who_leads_and_is_interrupted_leaves_the_others_to_the_next(
    entries: Entries, pool: ThreadPoolExecutor
) -> None:
    def interrupt(_: Write) -> None:
        raise KeyboardInterrupt

    group = entries._group
    with gathered(group, THREADS):
        leading = pool.submit(group.write, 1, interrupt)
        wait_until(lambda: group._leader is not None, "one that leads")
        futures = [pool.submit(group.write, 1, putting(str(number))) for number in range(1, THREADS)]
    with pytest.raises(KeyboardInterrupt):
        leading.result()
    for future in futures:
        future.result()
    assert all(entries.get(1, str(number)) == entry(str(number)) for number in range(1, THREADS))
    assert (group._leader, group._brought) == (None, [])


def test_who_waits_and_is_interrupted_takes_back_what_it_brought(
    entries: Entries, pool: ThreadPoolExecutor
) -> None:
    group, held, go_on = entries._group, threading.Event(), threading.Event()

    def hold() -> None:
        with entries._environment.writing():
            held.set()
            assert go_on.wait(60)

    def strike() -> None:
        wait_until(lambda: group._brought, "the main thread waits")
        os.kill(os.getpid(), signal.SIGINT)

    holding = pool.submit(hold)
    assert held.wait(60)
    leading = pool.submit(group.write, 1, putting("a"))
    wait_until(lambda: group._leader is not None, "one that leads")
    striking = pool.submit(strike)
    with pytest.raises(KeyboardInterrupt):
        group.write(1, putting("b"))
    go_on.set()
    for future in (holding, leading, striking):
        future.result()
    assert entries.get(1, "a") == entry("a")
    assert entries.get(1, "b") is None
    assert (group._leader, group._brought) == (None, [])


def test_a_child_of_a_fork_waits_for_none_of_its_parents_threads(
    entries: Entries, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, parent, go_on = entries._group, os.getpid(), threading.Event()
    real = Environment.writing

    def held(environment: Environment, patience_s: float, *, is_hasty: bool) -> Transaction:
        if os.getpid() == parent:
            assert go_on.wait(60)
        return real(environment, patience_s, is_hasty=is_hasty)

    monkeypatch.setattr(Environment, "writing", held)
    futures = [pool.submit(group.write, 1, putting(str(number))) for number in range(2)]
    wait_until(lambda: len(group._brought) == 1, "one that leads and one that waits")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if entries.put(1, [entry("child")]) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    go_on.set()
    for future in futures:
        future.result()
    assert all(entries.get(1, path) == entry(path) for path in ("0", "1", "child"))


def test_what_fails_together_is_not_kept_and_counts_as_trouble(
    entries: Entries, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Write.put

    def full(write: Write, wanted: list[Entry]) -> None:
        if wanted[0].path == "0":
            raise lmdb.MapFullError("full")
        real(write, wanted)

    monkeypatch.setattr(Write, "put", full)
    with gathered(entries._group, THREADS):
        futures = [pool.submit(entries.put, 1, [entry(str(number))]) for number in range(THREADS)]
    assert [bool(future.result()) for future in futures] == [False] + [True] * (THREADS - 1)
