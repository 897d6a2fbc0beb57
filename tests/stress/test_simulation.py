"""Simulated groups go through a thousand seeds of random troubles and agree again."""

from __future__ import annotations

from tests.cluster._troubles import have_troubles

SEEDS = 1_000


def test_views_agree_again_after_a_thousand_seeds_of_trouble() -> None:
    for seed in range(SEEDS):
        have_troubles(seed)
