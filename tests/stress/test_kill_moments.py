"""kill -9 at 500 random moments, in a MEM tier and in a disk tier."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from forebay.config import Medium
from tests.faults._moments import kill_at_random_moments
from tests.faults._place import Place

MOMENTS = 500


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("medium", ["MEM", "SSD"])
def test_kill_at_random_moments(medium: Medium, memory_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    place = Place.under(memory_path, medium=medium, quota="48MiB", high=0.5)
    kill_at_random_moments(place, MOMENTS, seed)
