"""kill -9 at 50 random moments of loads."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults._load_moments import kill_at_moments, opener

MOMENTS = 50


@pytest.mark.timeout(1800)
def test_killed_at_random_moments(tmp_path: Path, memory_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    kill_at_moments(opener(tmp_path, memory_path), tmp_path / "data", MOMENTS, seed)
