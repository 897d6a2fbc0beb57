"""Real members leave and come back a hundred times during reads."""

from __future__ import annotations

from pathlib import Path

from tests.cluster._churn import leave_and_come_back
from tests.cluster._site import running

TIMES = 100


def test_a_hundred_departures_and_returns(tmp_path: Path) -> None:
    with running(tmp_path, 3) as site:
        leave_and_come_back(site, TIMES)
