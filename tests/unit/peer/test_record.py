"""What a member tells other processes of its host, and no longer when it has ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from forebay.config import FORMAT_FOLDER
from forebay.metrics import samples
from forebay.peer import record
from forebay.peer.record import ServingRecord, serving_status
from forebay.peer.replicas.replicator import Figures
from tests.cluster._site import wait_until


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / FORMAT_FOLDER).mkdir()
    monkeypatch.setattr(record, "_STEP_S", 0.01)
    return str(tmp_path)


def test_it_is_told_while_the_member_lives(folder: str) -> None:
    assert serving_status(folder) is None
    said: dict[str, Any] = {"epoch": 1}
    served = ServingRecord(folder, lambda: dict(said))
    assert serving_status(folder) == {"epoch": 1}
    said["epoch"] = 2
    wait_until(lambda: serving_status(folder) == {"epoch": 2})
    served.close()
    assert serving_status(folder) is None


def test_what_a_killed_member_left_is_not_told(folder: str) -> None:
    child = os.fork()
    if child == 0:
        ServingRecord(folder, lambda: {"epoch": 1})
        signal.pause()
    try:
        wait_until(lambda: serving_status(folder) == {"epoch": 1})
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert serving_status(folder) is None
    served = ServingRecord(folder, lambda: {"epoch": 2})
    assert serving_status(folder) == {"epoch": 2}
    served.close()


def test_every_figure_of_copies_is_a_metric() -> None:
    figures = {name: number for number, name in enumerate(Figures.__slots__)}
    found = {metric.source[2]: value for metric, _, value in samples({"group": {"replicas": figures}})}
    assert found == figures
