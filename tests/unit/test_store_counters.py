"""Counters are exact: after a known sequence of calls each has one possible value. Status is JSON-able."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from forebay.config import MIB
from forebay.store import BlockStore
from forebay.store.report import COUNTERS
from tests.unit._stores import Stores, counted, counting, maintain, noise, rebuilt


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    return stores.open()


def test_a_new_store_has_counted_nothing(store: BlockStore) -> None:
    assert counted(store) == {}
    assert tuple(store.status()["counters"]) == COUNTERS


@pytest.mark.parametrize("medium", ["MEM", "SSD", "HDD"])
def test_puts_hits_and_misses_are_counted_by_medium_with_their_bytes(stores: Stores, medium: str) -> None:
    store = stores.open(stores.tier(medium=medium))  # type: ignore[arg-type]
    for number in range(10):
        store.put(b"%d" % number, noise(1000 + number))
    for number in range(15):
        store.get(b"%d" % number)
    for number in range(3):
        store.readinto(b"%d" % number, bytearray(5000))
        store.delete(b"%d" % number)
        store.delete(b"%d" % number)
    total = sum(range(1000, 1010))
    assert counted(store) == {
        "admitted": 10,
        "admitted_bytes": total,
        f"written_bytes_{medium.lower()}": total,
        f"hits_{medium.lower()}": 13,
        f"hit_bytes_{medium.lower()}": total + 3003,
        "misses_cold": 5,
        "deleted": 3,
    }


def test_the_account_is_the_sum_of_what_is_present(store: BlockStore) -> None:
    sizes: Counter[bytes] = Counter()
    for number in range(3000):
        key = b"%d" % (number % 700)
        assert store.put(key, bytes(number * 7 % 5000), dataset=number % 3)
        sizes[key] = number * 7 % 5000
        if number % 5 == 0:
            gone = b"%d" % (number * 11 % 700)
            assert store.delete(gone) == (sizes.pop(gone, None) is not None)
    status = store.status()
    assert status["blocks"] == len(sizes)
    assert status["committed_bytes"] == sizes.total()
    assert status["tiers"][0]["committed_blocks"] == len(sizes)
    assert status["counters"]["admitted"] == 3000
    assert status["counters"]["admitted_bytes"] == sum(number * 7 % 5000 for number in range(3000))


def test_segments_of_every_kind_add_up_to_the_tier(store: BlockStore) -> None:
    store.set_retention(0, "lru")
    view = None
    for number in range(3000):
        store.put(b"%d" % number, noise(50_000, number))
        if number == 0:
            view = store.get(b"0")
        if number % 10 == 0:
            store.maintain()
    tier = store.status()["tiers"][0]
    kinds = ("free", "open", "sealed", "held", "absent", "unscanned")
    assert sum(tier[f"segments_{kind}"] for kind in kinds) == tier["quota_bytes"] // tier["segment_bytes"]
    in_use = tier["segments_open"] + tier["segments_sealed"] + tier["segments_held"]
    assert tier["segments_held"] == 1
    assert tier["used_bytes"] == in_use * tier["segment_bytes"]
    assert tier["held_bytes"] == tier["segment_bytes"]
    assert tier["free_bytes"] == tier["segments_free"] * tier["segment_bytes"]
    assert tier["used_bytes"] + tier["free_bytes"] <= tier["effective_bytes"] == tier["quota_bytes"]
    assert view == noise(50_000, 0)


def test_what_is_not_admitted_is_counted_with_its_bytes(stores: Stores) -> None:
    store = stores.open(stores.tier(8 * MIB))
    answers = [store.put(b"%d" % number, bytes(60_000)) for number in range(200)]
    assert counted(store) == {
        "admitted": sum(answers),
        "admitted_bytes": sum(answers) * 60_000,
        "written_bytes_mem": sum(answers) * 60_000,
        "not_admitted": 200 - sum(answers),
        "not_admitted_bytes": (200 - sum(answers)) * 60_000,
    }


def test_expired_blocks_are_counted_once(store: BlockStore) -> None:
    for number in range(20):
        store.put(b"%d" % number, b"value", ttl_s=5)
    store.advance_clock(7)
    for number in range(4):
        store.get(b"%d" % number)
        store.delete(b"%d" % number)
    maintain(store, lambda: store.status()["blocks"] == 0)
    counters = counted(store)
    assert counters["misses_expired"] == 4
    assert counters["expired"] == 20
    assert "deleted" not in counters


def test_counters_go_on_over_a_close(stores: Stores, store: BlockStore) -> None:
    store.put(b"k", b"value")
    store.get(b"k")
    before = counted(store)
    store.close()
    again = stores.reopen()
    assert counted(again) == before
    again.get(b"k")
    assert counted(again) == before | {"hits_mem": 2, "hit_bytes_mem": 10}


def test_counters_go_on_over_a_lost_index_table(stores: Stores, store: BlockStore) -> None:
    """Segments are counted anew; what had been counted before lay in the index, and is gone with it."""
    for number in range(100):
        store.put(b"%d" % number, bytes(50_000))
    used = store.status()["tiers"][0]["segments_sealed"] + 1
    store.close()
    os.unlink(stores.path / "v1" / "index")
    store = rebuilt(stores.open())
    assert counted(store) == {"rebuilt_segments": used}


def child_counts(path: Path, end: str) -> None:
    store = BlockStore(path, maintainer=False)
    for number in range(50):
        store.get(b"k")
        store.put(b"%d" % number, b"value")
    if end == "close":
        store.close()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("end", ["close", "kill"])
def test_counters_of_a_process_outlive_it(stores: Stores, store: BlockStore, end: str) -> None:
    """However it ends, and whether or not another takes its row."""
    store.put(b"k", b"value")
    changes = counting(store)
    for rounds in (1, 2):
        child = multiprocessing.get_context("spawn").Process(target=child_counts, args=(stores.path, end))
        child.start()
        child.join(60)
        assert changes() == {
            "hits_mem": 50 * rounds,
            "hit_bytes_mem": 250 * rounds,
            "admitted": 50 * rounds,
            "admitted_bytes": 250 * rounds,
            "written_bytes_mem": 250 * rounds,
        }
    assert store.status()["rows"]["used"] == 1


def test_all_openers_see_the_sum(stores: Stores, store: BlockStore) -> None:
    others = [stores.open() for _ in range(3)]
    store.put(b"k", b"value")
    for number, other in enumerate(others):
        for _ in range(number + 1):
            other.get(b"k")
    for opener in (store, *others):
        assert opener.status()["counters"]["hits_mem"] == 6
        assert opener.status()["rows"]["used"] == 4
    assert len({opener.status()["rows"]["own"] for opener in (store, *others)}) == 4


def test_waiting_for_a_flight_is_counted(stores: Stores, store: BlockStore) -> None:
    patient, hasty = stores.open(stall_timeout_s=60), stores.open(stall_timeout_s=0.1)
    assert store.claim(b"k").leader
    leader, follower = store.claim(b"k"), patient.claim(b"k")
    assert leader.leader
    assert not follower.leader
    changes = counting(store)
    assert not follower.wait(0.01)
    assert changes() == {"flight_waits": 1}
    follower = hasty.claim(b"k")
    assert follower.wait(60)
    assert follower.stalled
    assert changes()["flight_stalled"] == 1
    leader.done()


def test_status_is_json(stores: Stores) -> None:
    store = stores.open(stores.tier(), stores.tier(medium="SSD"))
    store.put(b"k", b"value")
    view = store.get(b"k")
    status = store.status()
    by_name = {str(number): dataset for number, dataset in status["datasets"].items()}
    assert json.loads(json.dumps(status)) == {**status, "datasets": by_name}
    assert status.keys() == {
        "tiers",
        "counters",
        "datasets",
        "blocks",
        "committed_bytes",
        "index",
        "rows",
        "maps",
        "max_held_bytes",
        "maintainer_alive",
        "read_only",
        "holders",
    }
    assert [tier["medium"] for tier in status["tiers"]] == ["MEM", "SSD"]
    assert [tier["level"] for tier in status["tiers"]] == [0, 1]
    assert [tier["path"] for tier in status["tiers"]] == [
        stores.tier().path,
        stores.tier(medium="SSD").path,
    ]
    assert [(tier["failed"], tier["cause"]) for tier in status["tiers"]] == [(False, "")] * 2
    assert Path(status["index"]["live_path"]).exists()
    assert status["maps"]["used"] == 1
    del view


def test_the_index_takes_at_most_64_bytes_a_block_at_half_load(store: BlockStore) -> None:
    for number in range(60_000):
        store.put(b"%d" % number, b"")
    pages = store.status()["index"]["pages"]
    assert pages * 2046 / 2 <= 60_000
    assert pages * 65_536 / 60_000 <= 64


def test_whoever_fetches_counts_with_the_store(stores: Stores) -> None:
    store = stores.open(stores.tier())
    store.count("source_requests")
    store.count("source_bytes", 100)
    store.count("source_bytes", 23)
    assert store.status()["counters"]["source_requests"] == 1
    assert store.status()["counters"]["source_bytes"] == 123


@pytest.mark.parametrize("name", ["hits_mem", "segments_retired", "nothing"])
def test_a_counter_of_the_store_is_not_the_callers(store: BlockStore, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        store.count(name)
    assert not any(store.status()["counters"].values())
