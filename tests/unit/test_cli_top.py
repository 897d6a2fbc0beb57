"""What top makes of two looks at the counters."""

from __future__ import annotations

from typing import Any

import pytest

from forebay.cli.top import Look, Rates
from forebay.store.report import COUNTERS


def test_rates_are_a_second() -> None:
    before = dict.fromkeys(COUNTERS, 1_000)
    gone = {
        "hits_mem": 30,
        "hits_ssd": 10,
        "hit_bytes_mem": 4_000,
        "misses_cold": 5,
        "misses_changed": 5,
        "source_requests": 8,
        "source_bytes": 600,
        "source_errors": 1,
        "admitted_bytes": 500,
        "evicted_bytes": 2,
    }
    after = {name: count + gone.get(name, 0) for name, count in before.items()}
    rates = Rates.between(before, after, 2.0)
    assert rates == Rates(
        interval_s=2.0,
        hit_ratio=0.8,
        hits_per_s=20,
        misses_per_s=5,
        hit_bytes_per_s=2_000,
        source_requests_per_s=4,
        source_bytes_per_s=300,
        source_errors_per_s=0.5,
        admitted_bytes_per_s=250,
        evicted_bytes_per_s=1,
    )


def status(**of_datasets: dict[str, int] | None) -> dict[str, Any]:
    """Return a status in which so much was counted for these datasets, None for one without an account."""
    zero = dict.fromkeys(COUNTERS, 0)
    datasets = {
        number: {"name": name.strip("_"), "counters": {} if counted is None else zero | counted}
        for number, (name, counted) in enumerate(of_datasets.items())
    }
    return {"counters": zero, "datasets": datasets, "accounts": {"a": {"hits": 3}}, "mounts": []}


def test_each_dataset_has_its_own() -> None:
    before = status(_={}, a={"hits_mem": 1}, b=None)
    after = status(
        _={}, a={"hits_mem": 3, "misses_cold": 2}, b=None, new={"source_bytes": 50}, __={"hits_ssd": 5}
    )
    found = Look.between(before, after, 2.0).to_json()
    assert found["datasets"].keys() == {"a", "new", "#4"}
    assert (found["datasets"]["a"]["hits_per_s"], found["datasets"]["a"]["hit_ratio"]) == (1.0, 0.5)
    assert found["datasets"]["new"]["source_bytes_per_s"] == 25
    assert found["datasets"]["#4"]["hits_per_s"] == 2.5
    assert found["accounts"] == {"a": {"hits": 3}}
    assert found["hits_per_s"] == 0


@pytest.mark.parametrize("interval_s", [0.1, 5.0])
def test_nothing_happened(interval_s: float) -> None:
    before = dict.fromkeys(COUNTERS, 7)
    rates = Rates.between(before, before, interval_s)
    assert rates.hit_ratio is None
    assert rates.hits_per_s == rates.misses_per_s == rates.source_bytes_per_s == 0
