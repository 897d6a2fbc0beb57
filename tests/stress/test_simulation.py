"""Simulated groups go through thousands of seeds of random troubles and agree again."""

from __future__ import annotations

from tests.cluster._troubles import have_troubles
from tests.cluster.test_simulation import SEEDS

FURTHER = 4_000


def test_views_agree_again_after_thousands_of_seeds_of_trouble() -> None:
    for seed in range(SEEDS, SEEDS + FURTHER):
        have_troubles(seed)
