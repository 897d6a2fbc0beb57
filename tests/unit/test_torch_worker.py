"""A DataLoader's worker: what the garbage collector is told there, and nowhere else."""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections.abc import Iterator

import pytest
import torch.utils.data

from forebay.api import torch_worker
from forebay.api.torch_worker import spare_the_collector


class Cycle:
    """Something that only the collector finds to be garbage."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Leave the collector of the tests' process as it was."""
    torch_worker._forget()
    yield
    gc.unfreeze()
    torch_worker._forget()


@pytest.fixture
def in_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_worker, "get_worker_info", lambda: object())


@pytest.mark.usefixtures("in_worker")
def test_what_lives_is_passed_by_and_what_is_garbage_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    garbage = weakref.ref(Cycle())
    kept = Cycle()
    spare_the_collector()
    assert garbage() is None
    assert gc.get_freeze_count() > 0
    assert all(each is not kept for each in gc.get_objects())
    # Only where modules have come since.
    frozen = gc.get_freeze_count()
    later = [Cycle() for _ in range(100)]
    spare_the_collector()
    assert gc.get_freeze_count() <= frozen
    monkeypatch.setitem(sys.modules, "came_later", types.ModuleType("came_later"))
    spare_the_collector()
    assert gc.get_freeze_count() >= frozen + len(later)


def test_other_processes_are_let_alone() -> None:
    assert torch.utils.data.get_worker_info() is None
    spare_the_collector()
    assert gc.get_freeze_count() == 0
