"""Two containers on one store: both processes are number 1 of their PID namespace, and one is killed.

Every liveness test that goes by process ids takes the two for one here.
"""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.faults._child import Child, run, wait_until
from tests.faults._place import Place
from tests.faults._points import ALONE_ONLY, Case, Workload, cases
from tests.faults._victim import come_after, prepare, struck, survive
from tests.faults._world import Progress

JOINED = [case for case in cases() if case.medium == "MEM" and case.point not in ALONE_ONLY]


def survive_as_first(link: Connection, place: Place, workload: Workload) -> None:
    """Body: go on after the fault, as process 1."""
    assert os.getpid() == 1
    survive(link, place, workload)


def struck_as_first(link: Connection, place: Place, case: Case, progress: Progress) -> None:
    """Body: die at the failpoint, as process 1."""
    assert os.getpid() == 1
    struck(link, place, case.point, "kill", case.workload.acted, progress)


@pytest.mark.parametrize("case", JOINED, ids=str)
def test_one_of_two_first_processes_is_killed_and_the_other_goes_on(case: Case, memory_path: Path) -> None:
    place, progress = case.place(memory_path), Progress()
    run(prepare, place, case.workload)
    with Child(survive_as_first, place, case.workload, first_of_namespace=True) as survivor:
        assert survivor.receive() == "open"
        with Child(struck_as_first, place, case, progress, first_of_namespace=True) as victim:
            assert victim.exit_code() == -signal.SIGKILL, f"{case} was not reached"
        survivor.send(progress.count)
        survivor.result()
    run(come_after, place, case.workload, case.world(progress.count))


def hold(link: Connection, place: Place) -> None:
    """Body: as process 1, put a block, hold a view of it, and wait to be killed."""
    assert os.getpid() == 1
    with place.open() as store:
        assert store.put(b"held", b"x" * 1000)
        with store.get(b"held") or memoryview(b"") as view:
            link.send(bytes(view))
            link.recv()


def test_the_row_of_each_first_process_is_its_own(memory_path: Path) -> None:
    place = Place.under(memory_path)
    with (
        Child(hold, place, first_of_namespace=True) as one,
        Child(hold, place, first_of_namespace=True) as other,
    ):
        assert one.receive() == other.receive() == b"x" * 1000
        with place.open() as store:
            status = store.status()
            assert status["rows"]["used"] == 3
            assert [holder["pid"] for holder in status["holders"]] == [1, 1]
            one.kill()
            wait_until(lambda: store.status()["rows"]["used"] == 2, "its row is given up")
            assert [holder["leases"] for holder in store.status()["holders"]] == [1]
