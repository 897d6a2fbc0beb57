"""kill -9 at 200 random moments; tests/stress has more of them."""

from __future__ import annotations

import random
from pathlib import Path

from tests.faults._moments import kill_at_random_moments
from tests.faults._place import Place

MOMENTS = 200


def test_kill_at_random_moments(memory_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    kill_at_random_moments(Place.under(memory_path, quota="48MiB", high=0.5), MOMENTS, seed)
