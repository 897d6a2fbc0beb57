"""Quotas: over one nothing of its dataset is admitted, all else goes on, and room given back is room."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from forebay.config import KIB, MIB
from forebay.errors import ConfigError
from forebay.store import BlockStore
from tests.unit._stores import Stores, maintain, noise

LENGTH = 10_000
OWN = 7
BLOCK = 64 * KIB


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    return stores.open()


def fill_up(store: BlockStore, prefix: bytes = b"", dataset: int = OWN) -> int:
    """Put blocks until one is refused; return how many were admitted."""
    number = 0
    while store.put(prefix + b"%d" % number, noise(LENGTH, number), dataset=dataset):
        number += 1
    return number


def committed(store: BlockStore, dataset: int = OWN) -> int:
    return int(store.status()["datasets"][dataset]["committed_bytes"])


def test_nothing_is_admitted_beyond_the_quota_and_reads_go_on(stores: Stores, store: BlockStore) -> None:
    other = stores.open()
    store.set_quota(OWN, 10 * LENGTH)
    assert fill_up(other) == 10
    assert not store.put(b"one more", b"x", dataset=OWN)
    assert store.put(b"another's", bytes(LENGTH), dataset=8)
    assert [store.get(b"%d" % number) == noise(LENGTH, number) for number in range(10)] == [True] * 10
    dataset = store.status()["datasets"][OWN]
    assert (dataset["quota_bytes"], dataset["committed_bytes"]) == (10 * LENGTH, 10 * LENGTH)
    assert dataset["counters"]["not_admitted"] == 2
    assert store.get(b"one more", OWN) is None
    assert store.status()["datasets"][OWN]["counters"]["misses_not_admitted"] == 1
    assert store.status()["datasets"][8]["quota_bytes"] is None


def test_what_is_deleted_freed_or_expired_is_room_again(store: BlockStore) -> None:
    store.set_quota(OWN, 10 * LENGTH)
    assert fill_up(store) == 10
    store.delete(b"3")
    assert fill_up(store, b"a") == 1
    store.expire(b"4", 5)
    store.advance_clock(7)
    maintain(store, lambda: store.status()["blocks"] == 9)
    assert fill_up(store, b"b") == 1
    store.free_dataset(OWN)
    assert fill_up(store, b"c") == 10


def test_what_is_evicted_is_room_again(stores: Stores) -> None:
    """The tier is too small for both datasets, so blocks of the one with a quota go, and others may come."""
    store = stores.open(stores.tier(16 * MIB))
    quota = 8 * MIB
    store.set_quota(OWN, quota)
    admitted = 0
    for dataset in (OWN, 8):
        store.set_retention(dataset, "lru")
    for number in range(2000):
        admitted += store.put(b"%d" % number, noise(LENGTH, number), dataset=OWN)
        store.put(b"other %d" % number, noise(LENGTH, number), dataset=8)
        if number % 10 == 0:
            store.maintain()
            assert committed(store) <= quota
    assert admitted * LENGTH > 3 * quota // 2
    assert store.status()["datasets"][OWN]["counters"]["evicted"] > 0


def test_a_block_that_is_replaced_counts_once(store: BlockStore) -> None:
    store.set_quota(OWN, 3 * LENGTH)
    for _ in range(5):
        assert store.put(b"k", bytes(LENGTH), dataset=OWN)
    assert committed(store) == LENGTH
    assert store.put(b"k", bytes(LENGTH), dataset=8)
    assert committed(store) == 0
    assert fill_up(store) == 3


def test_a_reservation_is_refused_at_its_end_where_others_took_the_room(store: BlockStore) -> None:
    store.set_quota(OWN, LENGTH)
    first, second = (store.reserve(key, LENGTH, dataset=OWN) for key in (b"a", b"b"))
    for reservation in (first, second):
        with reservation as buffer:
            buffer[:] = noise(LENGTH)
    assert (first.admitted, second.admitted) == (True, False)
    assert store.get(b"b") is None
    assert committed(store) == LENGTH
    assert store.check().ok


def test_whole_files_count_as_well(stores: Stores) -> None:
    store = stores.open()
    store.set_quota(OWN, 30 * BLOCK)
    for name, admitted in ((b"f", True), (b"g", False)):
        with store.reserve_file(name, 20 * BLOCK, dataset=OWN, block_bytes=BLOCK) as file:
            for number in range(20):
                assert file.write(number, name + b"/%d" % number, noise(BLOCK, number)) == admitted
        assert file.admitted == file.complete == admitted
    assert committed(store) == 20 * BLOCK
    assert store.get_file(b"f") is not None


def test_a_quota_can_be_raised_lowered_and_taken_away(store: BlockStore) -> None:
    store.set_quota(OWN, 5 * LENGTH)
    assert fill_up(store) == 5
    store.set_quota(OWN, LENGTH)
    assert committed(store) == 5 * LENGTH, "what is there stays"
    assert not store.put(b"k", b"x", dataset=OWN)
    store.set_quota(OWN, "60KB")
    assert fill_up(store, b"a") == 1
    store.set_quota(OWN, None)
    assert store.put(b"k", bytes(10 * LENGTH), dataset=OWN)
    store.set_quota(OWN, 0)
    assert not store.put(b"l", b"x", dataset=OWN)
    store.set_quota(OWN, 1 << 100)
    assert store.put(b"l", b"x", dataset=OWN)


def test_a_quota_lasts_until_all_have_closed_the_store(stores: Stores, store: BlockStore) -> None:
    store.set_quota(OWN, LENGTH)
    other = stores.reopen()
    store.close()
    assert fill_up(other) == 1
    other.close()
    again = stores.reopen()
    assert again.status()["datasets"][OWN]["quota_bytes"] is None
    assert again.put(b"k", bytes(LENGTH), dataset=OWN)
    again.set_quota(OWN, 3 * LENGTH)
    assert fill_up(again, b"a") == 1, "what was there before counts"


@pytest.mark.parametrize("quota", [-1, "much", 1.5, True])
def test_what_is_no_size_is_refused(store: BlockStore, quota: object) -> None:
    with pytest.raises(ConfigError, match="quota"):
        store.set_quota(OWN, quota)  # type: ignore[arg-type]


def test_who_may_only_read_sets_no_quota(stores: Stores, store: BlockStore) -> None:
    reader = stores.reopen(read_only=True)
    with pytest.raises(PermissionError):
        reader.set_quota(OWN, 1)
    assert store.put(b"k", b"value", dataset=OWN)


def put_many(path: Path, prefix: bytes) -> None:
    with BlockStore(path, maintainer=False) as store:
        for number in range(300):
            store.put(prefix + b"%d" % number, bytes(LENGTH), dataset=OWN)


def test_processes_at_once_exceed_it_by_a_block_each_at_most(stores: Stores, store: BlockStore) -> None:
    store.set_quota(OWN, 100 * LENGTH)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=put_many, args=(stores.path, b"%d/" % n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert 100 * LENGTH <= committed(store) < 103 * LENGTH


def test_ids_that_differ_above_28_bits_have_one_quota(stores: Stores, store: BlockStore) -> None:
    spaces = [OWN | code << 28 for code in range(4)]
    store.set_quota(spaces[2], 8 * LENGTH)
    for number, space in enumerate(spaces):
        store.set_retention(space, "lru")
        for part in range(2):
            assert store.put(b"%d/%d" % (number, part), bytes(LENGTH), dataset=space)
    assert not any(store.put(b"more", b"x", dataset=space) for space in spaces)
    store.free_dataset(spaces[0])
    assert store.put(b"2/0", bytes(LENGTH), dataset=spaces[3])
    dataset = store.status()["datasets"][OWN]
    assert (dataset["quota_bytes"], dataset["committed_bytes"]) == (8 * LENGTH, 6 * LENGTH)
    store.close()
    again = stores.reopen()
    again.set_quota(OWN, 8 * LENGTH)
    assert fill_up(again, b"a") == 2, "what was there under any of them counts"
