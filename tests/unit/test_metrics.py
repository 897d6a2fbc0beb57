"""The table of metrics against what the store tells, and the Prometheus text against its parser."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from forebay.config import MIB, Tier
from forebay.metrics import METRICS, render_prometheus, samples
from forebay.store import BlockStore


@pytest.fixture
def status(tmp_path: Path, memory_path: Path) -> Iterator[dict[str, Any]]:
    """The status of a store that has admitted, hit, missed, and is being held."""
    tiers = [Tier(str(memory_path / "m"), 16 * MIB, "MEM"), Tier(str(tmp_path / 's"\\'), 16 * MIB, "SSD")]
    with BlockStore(tmp_path / "cache", tiers) as store:
        store.put(b"a", b"x" * 1000, dataset=7)
        assert store.get(b"b", 7) is None
        assert store.get(b"b") is None
        view = store.get(b"a")
        assert view is not None
        with view:
            yield store.status()


def test_every_counter_of_the_store_is_in_the_table(status: dict[str, Any]) -> None:
    of_datasets = [metric.source[3] for metric in METRICS if metric.source[2:3] == ("counters",)]
    assert of_datasets == list(status["datasets"][0]["counters"])
    of_the_store = [metric.source[1] for metric in METRICS if metric.source[0] == "counters"]
    assert {*of_datasets, *of_the_store} == status["counters"].keys()
    assert len(of_datasets) + len(of_the_store) == len(status["counters"])


def test_every_figure_of_a_tier_is_in_the_table(status: dict[str, Any]) -> None:
    figures = {name for name, value in status["tiers"][0].items() if isinstance(value, int)} - {"level"}
    listed = {metric.source[2] for metric in METRICS if metric.source[0] == "tiers"}
    # The size of segments is a property of the tier, not a state.
    assert listed == figures - {"segment_bytes"}


def test_every_figure_of_a_dataset_is_in_the_table(status: dict[str, Any]) -> None:
    listed = {metric.source[2] for metric in METRICS if metric.source[0] == "datasets"}
    # These are the cache's: a store knows no prices.
    assert listed - {"cost", "saved_cost"} == status["datasets"][7].keys()


def test_the_text_says_what_the_status_says(status: dict[str, Any]) -> None:
    parsed = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(render_prometheus(status))
        for sample in family.samples
    }
    expected = {
        (metric.name + ("_total" if metric.kind == "counter" else ""), frozenset(labels.items())): value
        for metric, labels, value in samples(status)
    }
    assert parsed == expected
    assert parsed["forebay_hits_total", frozenset({("dataset", "#7"), ("medium", "MEM")})] == 1
    assert parsed["forebay_misses_total", frozenset({("dataset", "#7"), ("cause", "cold")})] == 1
    assert parsed["forebay_misses_total", frozenset({("dataset", "#0"), ("cause", "cold")})] == 1
    assert parsed["forebay_admitted_bytes_total", frozenset({("dataset", "#7")})] == 1000
    assert parsed["forebay_dataset_committed_bytes", frozenset({("dataset", "#7")})] == 1000


def test_a_dataset_is_labelled_by_its_name_where_that_is_known(status: dict[str, Any]) -> None:
    status["datasets"][7]["name"] = "images"
    assert {labels["dataset"] for _, labels, _ in samples(status) if "dataset" in labels} == {"images", "#0"}


def test_counters_are_the_sums_over_the_datasets(status: dict[str, Any]) -> None:
    for metric in METRICS:
        if metric.source[2:3] == ("counters",):
            by_dataset = (one["counters"].get(metric.source[3], 0) for one in status["datasets"].values())
            assert status["counters"][metric.source[3]] == sum(by_dataset)


def test_names_are_one_family_each() -> None:
    kinds = {
        (metric.name, metric.kind, metric.help, tuple(metric.labels), metric.item_labels)
        for metric in METRICS
    }
    assert max(Counter(name for name, *_ in kinds).values()) == 1
    assert all(
        metric.name.startswith("forebay_") and not metric.name.endswith("_total") for metric in METRICS
    )


def test_the_page_lists_every_metric() -> None:
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for metric in METRICS:
        exposed = f"{metric.name}_total" if metric.kind == "counter" else metric.name
        assert f"| `{'.'.join(metric.source)}` | `{exposed}` |" in page
