"""Accounts: what was counted for each dataset, by whichever process, and the totals as their sums."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from forebay.config import MIB
from forebay.store import BlockStore
from forebay.store.report import COUNTERS, DATASET_COUNTERS
from tests.unit._stores import Stores, maintain, noise, rebuilt

ACCOUNTS = 63  # of datasets; the others share number 0
LENGTH = 50_000


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    return stores.open(stores.tier(16 * MIB))


def account(store: BlockStore, dataset: int) -> dict[str, int]:
    """Return what was counted for a dataset and is not zero."""
    counters: dict[str, int] = store.status()["datasets"][dataset]["counters"]
    return {name: value for name, value in counters.items() if value}


def assert_sums(store: BlockStore) -> None:
    """Every total is the sum over the datasets."""
    status = store.status()
    sums: Counter[str] = Counter()
    for dataset in status["datasets"].values():
        sums.update(dataset["counters"])
    assert {name: status["counters"][name] for name in DATASET_COUNTERS} == {
        name: sums[name] for name in DATASET_COUNTERS
    }
    for figure in ("committed_bytes", "blocks"):
        assert status[figure] == sum(dataset[figure] for dataset in status["datasets"].values())
    pinned = sum(tier["pinned_bytes"] for tier in status["tiers"])
    assert pinned == sum(dataset["pinned_bytes"] for dataset in status["datasets"].values())


def test_a_new_store_has_the_account_of_the_others_alone(store: BlockStore) -> None:
    (number, others), *rest = store.status()["datasets"].items()
    assert (number, rest) == (0, [])
    assert tuple(others["counters"]) == DATASET_COUNTERS
    assert set(DATASET_COUNTERS) < set(COUNTERS)
    assert not any(others["counters"].values())


def test_hits_and_admissions_are_those_of_the_blocks_dataset_and_misses_of_whoever_asks(
    store: BlockStore,
) -> None:
    for number in range(6):
        store.put(b"%d" % number, bytes(100 * number), dataset=7 + number % 2)
    for number in range(8):
        store.get(b"%d" % number, 9)
        store.readinto(b"%d" % number, bytearray(1000), 0, 9)
    assert account(store, 9) == {"misses_cold": 4}
    assert account(store, 7) == {
        "admitted": 3,
        "admitted_bytes": 600,
        "written_bytes_mem": 600,
        "hits_mem": 6,
        "hit_bytes_mem": 1200,
    }
    assert account(store, 8)["hit_bytes_mem"] == 1800
    assert account(store, 0) == {}
    assert {number: one["blocks"] for number, one in store.status()["datasets"].items()} == {
        0: 0,
        7: 3,
        8: 3,
        9: 0,
    }
    assert_sums(store)


def test_who_names_no_dataset_counts_with_the_others(store: BlockStore) -> None:
    store.put(b"k", b"value")
    store.get(b"k")
    store.get(b"absent")
    store.count("source_bytes", 5)
    assert account(store, 0) == {
        "admitted": 1,
        "admitted_bytes": 5,
        "written_bytes_mem": 5,
        "hits_mem": 1,
        "hit_bytes_mem": 5,
        "misses_cold": 1,
        "source_bytes": 5,
    }
    assert_sums(store)


def test_each_miss_has_one_cause(store: BlockStore) -> None:
    store.put(b"mortal", b"value", dataset=1, ttl_s=5)
    store.advance_clock(10)
    assert store.get(b"mortal", 1) is None
    assert store.get(b"cold", 1) is None
    assert store.get(b"new version", 1, True) is None
    assert store.readinto(b"new version", bytearray(1), 0, 1, True) is None
    assert store.peek(b"cold") is None
    assert store.readinto(b"cold", bytearray(1), quiet=True) is None
    store.put(b"too long", bytes(2 * MIB), dataset=1)
    assert store.get(b"too long", 1) is None
    assert account(store, 1) == {
        "admitted": 1,
        "admitted_bytes": 5,
        "written_bytes_mem": 5,
        "not_admitted": 1,
        "not_admitted_bytes": 2 * MIB,
        "misses_expired": 1,
        "misses_cold": 1,
        "misses_changed": 2,
        "misses_not_admitted": 1,
    }


def test_a_peek_is_a_get_but_for_the_miss(store: BlockStore) -> None:
    store.put(b"k", b"value", dataset=3)
    view = store.peek(b"k")
    assert view == b"value"
    assert view.zero_copy
    assert account(store, 3)["hits_mem"] == 1
    with pytest.raises(TypeError):
        store.peek(None)  # type: ignore[arg-type]


def test_a_glance_is_a_peek_that_never_waits(stores: Stores) -> None:
    store = stores.open(stores.tier(16 * MIB), stores.tier(16 * MIB, medium="SSD"))
    store.put(b"near", b"value", medium="MEM")
    store.put(b"far", b"value", medium="SSD")
    # The first look has the segment mapped.
    assert store.peek(b"near") == b"value"
    view = store.glance(b"near")
    assert view == b"value"
    assert view.zero_copy
    assert (store.glance(b"far"), store.glance(b"none")) == (None, None)
    assert store.peek(b"far") == b"value"


def test_what_is_evicted_moved_expired_and_deleted_is_of_its_dataset(stores: Stores) -> None:
    store = stores.open(stores.tier(16 * MIB), stores.tier(16 * MIB, medium="SSD"))
    for dataset in (1, 2):
        store.set_retention(dataset, "lru")
        for number in range(600):
            store.put(b"%d %d" % (dataset, number), noise(LENGTH, number), dataset=dataset)
            store.maintain()
    for dataset in (1, 2):
        counters = account(store, dataset)
        assert counters["demoted"] > 100
        assert counters["evicted"] * LENGTH == counters["evicted_bytes"] > 0
        assert counters["written_bytes_ssd"] > 0
        assert counters["admitted"] == 600
    assert "evicted" not in account(store, 0)
    held = [number for number in range(600) if store.contains(b"2 %d" % number)]
    store.delete_many([b"2 %d" % number for number in held[:10]])
    store.expire_many([b"2 %d" % number for number in held[10:15]], 5)
    store.advance_clock(10)
    maintain(store, lambda: account(store, 2).get("expired") == 5)
    assert account(store, 2)["deleted"] == 10
    assert_sums(store)


def test_pinned_bytes_are_told_by_dataset(store: BlockStore) -> None:
    store.put(b"a", bytes(1000), dataset=1, pinned=True)
    store.put(b"b", bytes(2000), dataset=2, pinned=True)
    store.put(b"c", bytes(4000), dataset=2)
    datasets = store.status()["datasets"]
    assert [datasets[number]["pinned_bytes"] for number in (1, 2)] == [1000, 2000]
    assert [datasets[number]["committed_bytes"] for number in (1, 2)] == [1000, 6000]
    assert_sums(store)


def test_whoever_fetches_counts_for_a_dataset(store: BlockStore) -> None:
    store.count("source_requests", 1, 5)
    store.count("source_bytes", 100, dataset=5)
    store.count("source_bytes", 23, 6)
    assert account(store, 5) == {"source_requests": 1, "source_bytes": 100}
    assert account(store, 6) == {"source_bytes": 23}
    assert_sums(store)
    for name in ("misses_cold", "misses_changed", "misses_not_admitted"):
        with pytest.raises(ValueError, match=name):
            store.count(name, 1, 5)


def test_more_datasets_than_accounts_share_that_of_the_others(stores: Stores) -> None:
    store = stores.open(stores.tier(128 * MIB))
    for dataset in range(1, ACCOUNTS + 11):
        assert store.put(b"%d" % dataset, bytes(dataset), dataset=dataset)
        store.get(b"%d" % dataset)
        store.get(b"absent", dataset)
    datasets = store.status()["datasets"]
    assert set(datasets) == set(range(ACCOUNTS + 11))
    for dataset in range(1, ACCOUNTS + 1):
        assert datasets[dataset]["counters"]["hit_bytes_mem"] == dataset
        assert datasets[dataset]["counters"]["misses_cold"] == 1
    for dataset in range(ACCOUNTS + 1, ACCOUNTS + 11):
        assert datasets[dataset]["counters"] == {}
        assert datasets[dataset]["committed_bytes"] == dataset
    assert account(store, 0)["misses_cold"] == account(store, 0)["hits_mem"] == 10
    assert_sums(store)


@pytest.mark.parametrize("end", ["close", "lose the index's table"])
def test_accounts_go_on_over_a_close(stores: Stores, store: BlockStore, end: str) -> None:
    for dataset in (300, 20, 1):
        store.put(b"%d" % dataset, bytes(dataset), dataset=dataset)
        store.get(b"%d" % dataset)
    before = {dataset: account(store, dataset) for dataset in (0, 1, 20, 300)}
    store.close()
    if end == "close":
        store = stores.reopen()
    else:
        with (stores.path / "v1" / "index").open("r+b") as index:
            index.seek(70_000)  # in the saved table of segments: only counters are believed
            index.write(b"\xff" * 100)
        store = rebuilt(stores.open(stores.tier(16 * MIB)))
    assert {dataset: account(store, dataset) for dataset in (0, 1, 20, 300)} == before
    store.get(b"20")
    assert account(store, 20) == before[20] | {"hits_mem": 2, "hit_bytes_mem": 40}
    assert_sums(store)


def child_counts(path: Path, dataset: int, end: str) -> None:
    store = BlockStore(path, maintainer=False)
    for number in range(50):
        store.get(b"k")
        store.put(b"%d %d" % (dataset, number), b"value", dataset=dataset)
        store.get(b"absent", dataset)
        store.count("source_bytes", 3, dataset)
    if end == "close":
        store.close()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_what_several_processes_counted_outlives_them_all(
    stores: Stores, store: BlockStore, end: str
) -> None:
    store.put(b"k", b"value", dataset=1)
    context = multiprocessing.get_context("spawn")
    for rounds in (1, 2):
        children: list[Any] = [
            context.Process(target=child_counts, args=(stores.path, dataset, end)) for dataset in (2, 3)
        ]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
        # A look-up misses where a writer lost its processor in the midst of the page.
        assert account(store, 1)["hits_mem"] + account(store, 0).get("misses_busy", 0) == 100 * rounds
        for dataset in (2, 3):
            counted = account(store, dataset)
            counted["misses_cold"] += counted.pop("misses_busy", 0)
            assert counted == {
                "admitted": 50 * rounds,
                "admitted_bytes": 250 * rounds,
                "written_bytes_mem": 250 * rounds,
                "misses_cold": 50 * rounds,
                "source_bytes": 150 * rounds,
            }
        assert_sums(store)


def test_a_read_only_opener_adds_its_own_to_what_it_shows(stores: Stores, store: BlockStore) -> None:
    store.put(b"k", b"value", dataset=4)
    reader = stores.reopen(read_only=True)
    reader.get(b"k")
    reader.get(b"absent", 4)
    reader.get(b"absent", 99)
    assert account(reader, 4)["hits_mem"] == account(reader, 4)["misses_cold"] == 1
    assert account(reader, 0) == {"misses_cold": 1}, "it gives no account to a dataset"
    assert_sums(reader)
    assert "hits_mem" not in account(store, 4)
    assert 99 not in store.status()["datasets"]


def test_ids_that_differ_above_28_bits_have_one_account(store: BlockStore) -> None:
    spaces = [7 | code << 28 for code in range(3)]
    for number, space in enumerate(spaces):
        store.put(b"%d" % number, bytes(1000), dataset=space)
        store.get(b"%d" % number, space)
        store.get(b"absent", space)
    status = store.status()["datasets"]
    assert set(status) == {0, 7}
    assert (status[7]["blocks"], status[7]["committed_bytes"]) == (3, 3000)
    counted = account(store, 7)
    assert (counted["admitted"], counted["hits_mem"], counted["misses_cold"]) == (3, 3, 3)


def test_what_is_not_even_offered_is_counted_as_refused(store: BlockStore) -> None:
    store.refuse(b"k", 1000, 7)
    assert store.get(b"k", 7) is None
    assert account(store, 7) == {"not_admitted": 1, "not_admitted_bytes": 1000, "misses_not_admitted": 1}
