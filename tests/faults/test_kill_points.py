"""kill -9 at every failpoint: who had the store open goes on, who opens it later finds it right."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults._child import Child, run
from tests.faults._place import Place
from tests.faults._points import ALONE_ONLY, DISK_POINTS, REACHED_BY, Case, cases, names_in_sources
from tests.faults._victim import come_after, prepare, struck, survive
from tests.faults._world import Progress

ALL = cases()
JOINED = [case for case in ALL if case.point not in ALONE_ONLY]


def kill_at(case: Case, place: Place) -> int:
    """Let a process die at a failpoint; return how many of its operations it had ended."""
    progress = Progress()
    with Child(struck, place, case.point, "kill", case.workload.acted, progress) as victim:
        assert victim.exit_code() == -signal.SIGKILL, f"{case} was not reached"
    return progress.count


def test_every_failpoint_has_a_workload() -> None:
    assert sorted(REACHED_BY) == names_in_sources()


@pytest.mark.parametrize("case", JOINED, ids=str)
def test_a_process_that_had_the_store_open_goes_on(case: Case, memory_path: Path) -> None:
    place = case.place(memory_path)
    run(prepare, place, case.workload)
    with Child(survive, place, case.workload) as survivor:
        assert survivor.receive() == "open"
        completed = kill_at(case, place)
        survivor.send(completed)
        survivor.result()
    run(come_after, place, case.workload, case.world(completed))


@pytest.mark.parametrize("case", ALL, ids=str)
def test_who_opens_the_store_next_finds_it_right(case: Case, memory_path: Path) -> None:
    place = case.place(memory_path)
    run(prepare, place, case.workload)
    run(come_after, place, case.workload, case.world(kill_at(case, place)))


@pytest.mark.parametrize("case", [case for case in ALL if case.point.startswith(DISK_POINTS)], ids=str)
def test_a_rebuild_after_the_kill_finds_it_right(case: Case, memory_path: Path) -> None:
    """The record tables say what was committed; what was reserved is no hole that a scan cannot cross."""
    place = case.place(memory_path)
    run(prepare, place, case.workload)
    world = case.world(kill_at(case, place))
    place.lose_index()
    run(come_after, place, replace(case.workload, index_lost=True), world)
