"""The guard of LMDB files: kills and halts at every step, PID namespaces, forks.

Nobody may ever be given pages of another commit, a dead process may hold nobody up, and readers wait for
nobody. What the guard takes LMDB to do, and that these tests would notice if it did not, is tested first.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import lmdb
import pytest

from forebay.errors import Closed, StoreBusy
from forebay.meta import environment
from forebay.meta.environment import Environment
from tests.faults._child import Child, ChildError, run, wait_until
from tests.faults._damage_inject import killing
from tests.faults._meta import (
    LAST,
    STEPS,
    file_in,
    halt,
    list_steps,
    opened,
    read,
    read_all,
    serve,
    write,
    write_all,
)

SHORT_S = 0.02
PLACES = [(work, index) for work, steps in STEPS.items() for index in range(len(steps))]
PLACE_IDS = [f"{work}-{index}-{STEPS[work][index]}".replace(" ", "_") for work, index in PLACES]


@pytest.fixture
def folder(meta_folder: Path) -> Path:
    """The file's folder, on the disk and on tmpfs."""
    return meta_folder


def test_lmdb_overwrites_a_snapshot_with_the_third_commit_after_it(tmp_path: Path) -> None:
    def churn(link: Connection) -> None:
        with lmdb.open(str(tmp_path / "bare"), subdir=False, lock=False, map_size=1 << 28) as env:

            def commit(number: int) -> None:
                with env.begin(write=True) as transaction:
                    write_all(transaction, number)

            for number in range(1, 9):
                commit(number)
            snapshot = env.begin()
            assert read_all(snapshot) == 8
            for number in (9, 10):
                commit(number)
                link.send(read_all(snapshot))
            commit(11)
            link.send("overwritten")
            assert read_all(snapshot) == 8, "key of another commit"

    with Child(churn) as child:
        assert [child.receive() for _ in range(3)] == [8, 8, "overwritten"]
        with pytest.raises(ChildError, match=r"key|ended with"):
            child.result()


def test_a_guard_that_ignores_readers_is_noticed(folder: Path) -> None:
    with Child(serve, folder, True) as writer, Child(halt, folder, "read", 3) as reader:
        assert (writer.receive(), reader.receive()) == ("open", "ready")
        assert reader.ask("go") == "halfway"
        assert [writer.ask(SHORT_S) for _ in range(3)] == [6, 7, 8]
        reader.send("go on")
        with pytest.raises(ChildError, match=r"key|ended with"):
            reader.result()


@pytest.mark.parametrize("work", STEPS)
def test_the_steps_are_these(folder: Path, work: str) -> None:
    if work == "read":
        with opened(folder) as env:
            assert read(env) == LAST
    assert run(list_steps, folder, work)[: len(STEPS[work])] == list(STEPS[work])


def begin_halt(survivor: Child, victim: Child, work: str, index: int) -> int:
    """Bring the victim to its step; return the number of the last commit before."""
    assert (survivor.receive(), victim.receive()) == ("open", "ready")
    last = survivor.ask(SHORT_S) if work == "read behind" else LAST
    assert victim.ask("go") == STEPS[work][index]
    return int(last)


@pytest.mark.parametrize("first_of_namespace", [False, True], ids=["", "namespaces"])
@pytest.mark.parametrize(("work", "index"), PLACES, ids=PLACE_IDS)
def test_a_kill_at_any_step_holds_nobody_up(
    work: str, index: int, first_of_namespace: bool, folder: Path
) -> None:
    with (
        Child(serve, folder, first_of_namespace=first_of_namespace) as survivor,
        Child(halt, folder, work, index, first_of_namespace=first_of_namespace) as victim,
    ):
        last = begin_halt(survivor, victim, work, index)
        committed = last + (STEPS[work][index] == "unlock all")
        assert survivor.ask("read") == committed
        victim.kill()
        assert victim.exit_code() == -signal.SIGKILL
        for number in range(committed + 1, committed + 5):
            assert survivor.ask(10.0) == number
            assert survivor.ask("read") == number
    with opened(folder) as env:
        assert read(env) == committed + 4


def test_a_kill_in_the_middle_of_a_commit_leaves_the_last(folder: Path) -> None:
    """Kill it as it begins each of the commit's writes; the last of them is the meta page's."""
    writes = "pwrite64,pwritev,write,writev"
    end = STEPS["write"].index("end")
    with opened(folder) as env:
        for nth in range(1, 100):
            last = read(env)
            with Child(halt, folder, "write", end) as victim:
                assert victim.receive() == "ready"
                assert victim.ask("go") == "end"
                with killing(victim.pid, writes, nth, [file_in(folder)]):
                    victim.send("go on")
                    code = victim.exit_code()
            killed = code == -signal.SIGKILL
            assert killed or code == 0
            assert read(env) == last + (not killed)
            if not killed:
                break
            for count in range(1, 5):
                assert write(env) == last + count
    assert 3 <= nth < 100


def commits_that_pass(work: str, index: int) -> int | None:
    """How many commits may pass while a process is halted at a step; None: any number."""
    name = STEPS[work][index]
    if work == "write":
        return None if index == 0 else 0
    if work == "read behind" and index in (1, 2, 3):
        return 0  # it holds the commit before the last
    return None if name in ("share", "info") else 1


@pytest.mark.parametrize(("work", "index"), PLACES, ids=PLACE_IDS)
def test_a_halt_at_any_step_costs_writes_and_never_reads(work: str, index: int, folder: Path) -> None:
    with Child(serve, folder) as survivor, Child(halt, folder, work, index) as victim:
        last = begin_halt(survivor, victim, work, index)
        newest = last + (STEPS[work][index] == "unlock all")
        allowed = commits_that_pass(work, index)
        for attempt in range(4):
            made = survivor.ask(SHORT_S)
            assert made == (newest + 1 if allowed is None or attempt < allowed else None)
            newest = made or newest
            assert survivor.ask("read") == newest
        victim.send("go on")
        result = victim.result()
        if work == "write":
            newest = max(newest, result)
            assert result == last + 1 if allowed == 0 else result == newest
        else:
            pinned = index in range(len(STEPS[work]) - 4, len(STEPS[work]))
            assert result == (last if pinned else newest)
        assert survivor.ask(10.0) == newest + 1
        assert survivor.ask("read") == newest + 1


def test_a_stopped_reader_lets_one_commit_pass_and_then_stops_writing(folder: Path) -> None:
    with opened(folder) as env, Child(halt, folder, "read", 3) as reader:
        assert reader.receive() == "ready"
        assert reader.ask("go") == "halfway"
        reader.stop()
        assert write(env) == LAST + 1
        begun = time.monotonic()
        with pytest.raises(StoreBusy, match="stopped in one"), env.writing(SHORT_S):
            pytest.fail("began")
        assert SHORT_S <= time.monotonic() - begun < 10.0
        assert read(env) == LAST + 1
        reader.resume()
        reader.send("go on")
        assert reader.result() == LAST
        assert write(env) == LAST + 2


def test_two_threads_share_a_snapshot(folder: Path) -> None:
    with opened(folder) as env, Child(serve, folder) as writer:
        assert writer.receive() == "open"
        with env.reading() as one:
            with env.reading() as other:
                assert read_all(other) == read_all(one) == LAST
            assert writer.ask(10.0) == LAST + 1
            with env.reading() as newer:
                assert read_all(newer) == LAST + 1
            assert writer.ask(SHORT_S) is None
            assert read_all(one) == LAST
        assert writer.ask(10.0) == LAST + 2


def test_one_thread_writes_at_a_time(folder: Path) -> None:
    with opened(folder) as env:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(20):
                    assert write(env) is not None
            except BaseException as error:  # noqa: BLE001  (shown below, whatever it is)
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert read(env) == LAST + 60


@pytest.mark.parametrize("writes", [False, True], ids=["reading", "writing"])
def test_a_fork_waits_for_the_transaction_of_another_thread(folder: Path, writes: bool) -> None:
    order: list[str] = []
    with opened(folder) as env:

        def fork() -> None:
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    code = 0 if read(env) == LAST and write(env) == LAST + 1 else 2
                finally:
                    os._exit(code)
            order.append("forked")
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            order.append("ended")

        thread = threading.Thread(target=fork)
        with env.writing() if writes else env.reading() as transaction:
            thread.start()
            wait_until(lambda: environment._gate._forks, "the fork begins")
            assert read_all(transaction) == LAST
            assert order == []
        thread.join()
        assert order == ["forked", "ended"]
        assert read(env) == LAST + 1


@pytest.mark.parametrize("writes", [False, True], ids=["reading", "writing"])
def test_closing_waits_for_the_transaction_of_another_thread(folder: Path, writes: bool) -> None:
    with opened(folder) as env:
        thread = threading.Thread(target=env.close)
        with env.writing() if writes else env.reading() as transaction:
            begun_before = env.reading()
            thread.start()
            wait_until(lambda: environment._gate._closing, "the close begins")
            assert read_all(transaction) == LAST
            assert thread.is_alive()
        thread.join()
        for attempt in (env.reading, begun_before.__enter__):
            with pytest.raises(Closed):
                attempt()
    with opened(folder) as again:
        assert read(again) == LAST


def test_a_child_holds_no_lock_of_its_killed_parent(folder: Path) -> None:
    def fork_and_halt(link: Connection, env: Environment, pipe: tuple[int, int], writes: bool) -> None:
        if os.fork() == 0:
            os.close(pipe[1])
            os.read(pipe[0], 1)
            os._exit(0)
        with env.writing() if writes else env.reading():
            link.send("inside")
            link.recv()

    for writes in (False, True):
        with opened(folder) as env, ExitStack() as stack:
            pipe = os.pipe()
            stack.callback(os.close, pipe[0])
            stack.callback(os.close, pipe[1])  # here the child ends
            last = read(env)
            with Child(fork_and_halt, env, pipe, writes) as parent:
                assert parent.receive() == "inside"
                parent.kill()
                parent.exit_code()
                assert [write(env) for _ in range(4)] == [last + count for count in range(1, 5)]
