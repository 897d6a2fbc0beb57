"""Retention: what is kept, what goes, what moves between tiers, and when."""

from __future__ import annotations

import random

import pytest

from forebay.config import MIB
from forebay.errors import ConfigError
from forebay.store import BlockStore
from tests.unit._stores import Stores, counting, maintain, noise

BLOCK = 50_000


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    return stores.open(stores.tier(32 * MIB))


@pytest.fixture
def two_levels(stores: Stores) -> BlockStore:
    return stores.open(stores.tier(16 * MIB), stores.tier(64 * MIB, "SSD"))


def put(store: BlockStore, number: int, dataset: int = 0) -> bool:
    return store.put(b"%d" % number, noise(BLOCK, number), dataset=dataset)


def put_maintained(store: BlockStore, numbers: range, dataset: int = 0) -> int:
    """Put blocks as a maintainer keeps up with them; return how many were admitted."""
    admitted = 0
    for number in numbers:
        admitted += put(store, number, dataset)
        if number % 10 == 0:
            store.maintain()
    return admitted


def present(store: BlockStore, numbers: range) -> list[int]:
    """Say which blocks are there, and that these are right, without a trace in the counters."""
    return [number for number in numbers if store.contains(b"%d" % number)]


def read_epoch(store: BlockStore, numbers: range, seed: int) -> int:
    """Read every block once in a random order, putting what is missed; return the hits."""
    order = list(numbers)
    random.Random(seed).shuffle(order)
    hits = 0
    for number in order:
        view = store.get(b"%d" % number)
        if view is None:
            put(store, number)
        else:
            assert view == noise(BLOCK, number)
            hits += 1
        store.maintain()
    return hits


def used_share(store: BlockStore, tier: int = 0) -> float:
    status = store.status()["tiers"][tier]
    return float(status["used_bytes"] / status["quota_bytes"])


@pytest.mark.parametrize("retention", ["lru", "s3fifo"])
def test_under_pressure_the_tier_is_brought_back_below_its_watermark(
    store: BlockStore, retention: str
) -> None:
    store.set_retention(0, retention)
    admitted = put_maintained(store, range(2000))
    assert admitted == 2000
    store.maintain()
    assert 0.5 < used_share(store) <= 0.95
    here = present(store, range(2000))
    assert here == list(range(here[0], 2000))
    for number in here:
        assert store.get(b"%d" % number) == noise(BLOCK, number)
    counters = store.status()["counters"]
    assert counters["evicted"] == 2000 - len(here)
    assert counters["evicted_bytes"] == counters["evicted"] * BLOCK
    assert store.check().ok


def test_a_miss_of_what_was_evicted_says_so(store: BlockStore) -> None:
    store.set_retention(0, "lru")
    put_maintained(store, range(1000))
    gone = present(store, range(1000))[0] - 1
    changes = counting(store)
    assert store.get(b"%d" % gone) is None
    assert store.get(b"never") is None
    assert changes() == {"misses_evicted": 1, "misses_cold": 1}


@pytest.mark.parametrize("retention", ["lru", "s3fifo"])
def test_what_is_read_again_and_again_is_kept(store: BlockStore, retention: str) -> None:
    store.set_retention(0, retention)
    hot = range(40)
    put_maintained(store, hot)
    for number in range(1000, 4000):
        put_maintained(store, range(number, number + 1))
        store.get(b"%d" % (number % 40))
    assert len(present(store, hot)) >= 38
    assert store.status()["counters"]["moved"] > 0
    assert store.check().ok


def test_s3fifo_is_not_washed_out_by_a_scan_and_lru_is(stores: Stores) -> None:
    kept = {}
    for retention in ("s3fifo", "lru"):
        store = stores.open(
            stores.tier(32 * MIB, name=retention), path=stores.path.with_name(f"cache-{retention}")
        )
        store.set_retention(0, retention)
        hot = range(100)
        put_maintained(store, hot)
        for _ in range(3):
            assert len([number for number in hot if store.get(b"%d" % number)]) == 100
        put_maintained(store, range(1000, 1500))
        kept[retention] = len(present(store, hot))
    assert kept["s3fifo"] >= 95
    assert kept["lru"] < kept["s3fifo"]


def test_epoch_keeps_what_it_has_and_admits_no_more_than_fits(store: BlockStore) -> None:
    put_maintained(store, range(1000))
    here = present(store, range(1000))
    assert here == list(range(len(here)))
    assert used_share(store) <= 0.95
    changes = counting(store)
    for seed in range(7):
        assert read_epoch(store, range(1000), seed) == len(here)
    assert changes() == {
        "hits_mem": 7 * len(here),
        "hit_bytes_mem": 7 * len(here) * BLOCK,
        "misses_not_admitted": 7 * (1000 - len(here)),
        "not_admitted": 7 * (1000 - len(here)),
        "not_admitted_bytes": 7 * (1000 - len(here)) * BLOCK,
    }
    assert present(store, range(1000)) == here


def test_epoch_moves_nothing_between_tiers(two_levels: BlockStore) -> None:
    put_maintained(two_levels, range(1200))
    tiers = two_levels.status()["tiers"]
    assert tiers[0]["committed_blocks"] > 0
    assert tiers[1]["committed_blocks"] > tiers[0]["committed_blocks"]
    changes = counting(two_levels)
    for seed in range(7):
        read_epoch(two_levels, range(1200), seed)
    written = {"written_bytes_mem", "written_bytes_ssd", "promoted", "demoted", "moved", "evicted"}
    assert not written & changes().keys()


def test_what_memory_cannot_keep_is_demoted(two_levels: BlockStore) -> None:
    two_levels.set_retention(0, "lru")
    changes = counting(two_levels)
    assert put_maintained(two_levels, range(800)) == 800
    maintain(two_levels, lambda: used_share(two_levels) <= 0.95)
    here = present(two_levels, range(800))
    assert len(here) == 800
    assert changes()["demoted"] > 400
    assert changes()["written_bytes_ssd"] == changes()["demoted"] * BLOCK
    tiers = two_levels.status()["tiers"]
    assert tiers[1]["committed_blocks"] == changes()["demoted"]
    for number in range(800):
        assert two_levels.get(b"%d" % number) == noise(BLOCK, number)
    assert two_levels.check().ok


def test_s3fifo_demotes_what_was_read_and_drops_what_was_not(two_levels: BlockStore) -> None:
    two_levels.set_retention(0, "s3fifo")
    for number in range(600):
        put_maintained(two_levels, range(number, number + 1))
        for _ in range(3):
            assert two_levels.get(b"%d" % number) is not None
    changes = counting(two_levels)
    put_maintained(two_levels, range(1000, 3000))
    assert len(present(two_levels, range(600))) == 600
    assert two_levels.status()["counters"]["demoted"] > 200
    assert changes()["evicted"] > 1900


def test_what_is_hit_twice_on_disk_is_promoted(two_levels: BlockStore) -> None:
    two_levels.set_retention(0, "lru")
    put_maintained(two_levels, range(500))
    (*_, on_disk) = (number for number in range(500) if in_tier(two_levels, number) == "SSD")
    two_levels.maintain()
    assert two_levels.status()["counters"]["promoted"] == 0
    changes = counting(two_levels)
    assert in_tier(two_levels, on_disk) == "SSD"
    maintain(two_levels, lambda: in_tier(two_levels, on_disk) == "MEM")
    assert changes()["promoted"] == 1
    assert two_levels.get(b"%d" % on_disk) == noise(BLOCK, on_disk)
    assert two_levels.check().ok


def in_tier(store: BlockStore, number: int) -> str:
    """Tell by the kind of view where a block lies; it counts as a read."""
    changes = counting(store)
    assert store.readinto(b"%d" % number, bytearray(1)) is not None
    return "MEM" if "hits_mem" in changes() else "SSD"


def test_promotion_has_a_limit_of_bytes_a_second(stores: Stores) -> None:
    store = stores.open(
        stores.tier(16 * MIB), stores.tier(64 * MIB, "SSD"), promote_bytes_per_second=3 * BLOCK
    )
    store.set_retention(0, "lru")
    put_maintained(store, range(500))
    for _ in range(3):
        for number in range(40):
            assert store.get(b"%d" % number) == noise(BLOCK, number)
    changes = counting(store)
    store.maintain()
    assert 1 <= changes()["promoted"] <= 4


def test_nothing_is_promoted_at_a_limit_of_zero(stores: Stores) -> None:
    store = stores.open(stores.tier(16 * MIB), stores.tier(64 * MIB, "SSD"), promote_bytes_per_second=0)
    store.set_retention(0, "lru")
    put_maintained(store, range(500))
    for _ in range(3):
        for number in range(40):
            store.get(b"%d" % number)
        store.maintain()
    assert store.status()["counters"]["promoted"] == 0


def fill(store: BlockStore, dataset: int) -> range:
    """Put what goes into the store and a little more; return the numbers of what was admitted."""
    first = dataset * 10_000
    number = first
    while put(store, number, dataset):
        number += 1
    return range(first, number)


def test_a_dataset_gives_way_to_another_when_it_was_unread_for_ten_minutes(store: BlockStore) -> None:
    first = fill(store, 1)
    assert store.get(b"%d" % first[0]) is not None
    store.maintain()
    store.advance_clock(590)
    assert not put(store, 20_000, dataset=2)
    for _ in range(10):
        store.maintain()
    assert present(store, first) == list(first)
    store.advance_clock(20)
    assert not put(store, 20_000, dataset=2)
    maintain(store, lambda: put(store, 20_000, dataset=2))
    gone = len(first) - len(present(store, first))
    assert 0 < gone <= 3 * MIB // BLOCK
    admitted = put_maintained(store, range(20_001, 20_300), dataset=2)
    assert admitted > 250
    assert len(present(store, first)) <= len(first) - admitted + 3 * MIB // BLOCK


def test_what_was_loaded_just_now_does_not_give_way_though_nobody_read_it_yet(store: BlockStore) -> None:
    first = fill(store, 1)
    for _ in range(10):
        assert not put(store, 20_000, dataset=2)
        store.maintain()
    assert present(store, first) == list(first)


def test_the_dataset_unread_longest_gives_way(stores: Stores) -> None:
    store = stores.open(stores.tier(32 * MIB))
    for number in range(200):
        assert put(store, 10_000 + number, 1)
        assert put(store, 20_000 + number, 2)
    third = fill(store, 3)
    for dataset in (1, 3, 2):
        store.advance_clock(1000)
        assert store.get(b"%d" % (dataset * 10_000)) is not None
        store.maintain()
    store.advance_clock(700)
    assert not put(store, 40_000, dataset=4)
    maintain(store, lambda: put(store, 40_000, dataset=4))
    assert len(present(store, range(10_000, 10_200))) < 200
    assert len(present(store, range(20_000, 20_200))) == 200
    assert present(store, third) == list(third)


def test_after_a_restart_datasets_have_their_ten_minutes_again(stores: Stores, store: BlockStore) -> None:
    first = fill(store, 1)
    store.advance_clock(500)
    store.close()
    store = stores.reopen()
    for _ in range(10):
        assert not put(store, 20_000, dataset=2)
        store.maintain()
    assert present(store, first) == list(first)


def test_room_of_deleted_blocks_is_used_again(store: BlockStore) -> None:
    first = fill(store, 1)
    kept = [number for number in first if number % 3 == 0]
    for number in sorted({*first} - {*kept}):
        assert store.delete(b"%d" % number)
    assert not put(store, 20_000, dataset=1)
    maintain(store, lambda: put(store, 20_000, dataset=1))
    admitted = put_maintained(store, range(20_001, 20_200), dataset=1)
    assert admitted > 150
    assert present(store, first) == kept
    for number in kept:
        assert store.get(b"%d" % number) == noise(BLOCK, number)
    assert store.status()["counters"]["evicted"] == 0
    assert store.check().ok


def test_segments_of_deleted_blocks_are_free_without_anybody_asking(store: BlockStore) -> None:
    first = fill(store, 1)
    for number in first:
        store.delete(b"%d" % number)
    maintain(store, lambda: used_share(store) < 0.05)
    assert store.status()["committed_bytes"] == 0


def test_a_freed_dataset_gives_its_segments_back_at_once(store: BlockStore) -> None:
    put(store, 1, dataset=1)
    fill(store, 2)
    store.free_dataset(2)
    assert used_share(store) < 0.05
    assert store.get(b"1") == noise(BLOCK, 1)
    assert store.status()["blocks"] == 1
    store.free_dataset(7)
    assert put(store, 2, dataset=2)
    assert store.get(b"2") == noise(BLOCK, 2)


def test_eviction_leaves_the_bytes_under_a_view(store: BlockStore) -> None:
    store.set_retention(0, "lru")
    put(store, 0)
    view = store.get(b"0")
    put_maintained(store, range(1, 2000))
    assert store.get(b"0") is None
    assert view == noise(BLOCK, 0)
    assert store.status()["tiers"][0]["segments_held"] == 1
    del view
    maintain(store, lambda: store.status()["tiers"][0]["segments_held"] == 0)


def test_both_policies_share_a_tier(store: BlockStore) -> None:
    store.set_retention(1, "lru")
    store.set_retention(2, "s3fifo")
    for number in range(1500):
        assert put(store, 10_000 + number, 1)
        assert put(store, 20_000 + number, 2)
        store.maintain()
    assert len(present(store, range(10_000, 11_500))) > 100
    assert len(present(store, range(20_000, 21_500))) > 100
    assert used_share(store) <= 0.95


@pytest.mark.parametrize("retention", ["LRU", "", "fifo", "s3-fifo"])
def test_an_unknown_retention_is_refused_with_what_there_is(store: BlockStore, retention: str) -> None:
    with pytest.raises(ConfigError, match="must be one of epoch, s3fifo, lru"):
        store.set_retention(0, retention)


def test_a_dataset_is_a_number_of_32_bits(store: BlockStore) -> None:
    store.set_retention(2**32 - 1, "lru")
    assert store.put(b"k", b"value", dataset=2**32 - 1)
    store.free_dataset(2**32 - 1)
    assert store.get(b"k") is None
    for dataset in (-1, 2**32):
        with pytest.raises(OverflowError):
            store.put(b"k", b"value", dataset=dataset)
        with pytest.raises(OverflowError):
            store.set_retention(dataset, "lru")


def test_the_maintainer_is_one_thread_of_the_process_that_admits(stores: Stores) -> None:
    """It keeps a tier below its watermark with nobody calling maintain."""
    store = stores.open(stores.tier(32 * MIB), maintainer=True)
    store.set_retention(0, "lru")
    other = stores.reopen()
    for number in range(3000):
        store.put(b"%d" % number, noise(BLOCK, number % 50))
    assert store.status()["maintainer_alive"]
    assert store.status()["counters"]["evicted"] > 1500
    assert not other.maintain()
    store.close()
    assert other.maintain()
    assert other.check().ok


def test_spare_data_is_admitted_only_below_the_low_watermark(store: BlockStore) -> None:
    store.set_retention(1, "spare")
    admitted = sum(put(store, number, dataset=1) for number in range(2000))
    assert 0 < admitted < 2000
    low = store.status()["tiers"][0]["quota_bytes"] * 0.90
    assert store.status()["tiers"][0]["used_bytes"] <= low
    assert store.status()["counters"]["evicted"] == 0


@pytest.mark.parametrize("retention", ["epoch", "lru", "s3fifo"])
def test_spare_data_goes_before_all_else(store: BlockStore, retention: str) -> None:
    store.set_retention(0, retention)
    store.set_retention(1, "spare")
    kept = put_maintained(store, range(200))
    put_maintained(store, range(1000, 2000), dataset=1)
    spare_before = len(present(store, range(1000, 2000)))
    kept += put_maintained(store, range(200, 400))
    assert kept == 400
    assert present(store, range(400)) == list(range(400))
    assert 0 < len(present(store, range(1000, 2000))) < spare_before
