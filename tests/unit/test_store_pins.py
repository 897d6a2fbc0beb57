"""Pins: what is pinned is never evicted, and what would not fit is refused with the figures."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from forebay.config import KIB, MIB
from forebay.errors import PinLimit
from forebay.store import BlockStore
from tests.unit._stores import Stores, maintain, noise, rebuilt

PIN_BYTES = 50 * KIB


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    return stores.open(stores.tier(16 * MIB))


def pinned_bytes(store: BlockStore) -> int:
    return sum(tier["pinned_bytes"] for tier in store.status()["tiers"])


def press(store: BlockStore, dataset: int = 9) -> None:
    """Put three times what the tier holds."""
    store.set_retention(dataset, "lru")
    for number in range(1000):
        store.put(b"press %d" % number, noise(50_000, number), dataset=dataset)
        if number % 10 == 0:
            store.maintain()


@pytest.mark.parametrize("retention", ["epoch", "s3fifo", "lru"])
def test_what_is_pinned_is_never_evicted(store: BlockStore, retention: str) -> None:
    store.set_retention(1, retention)
    for number in range(200):
        assert store.put(b"%d" % number, noise(20_000, number), dataset=1)
    for number in range(0, 200, 10):
        assert store.pin(b"%d" % number)
    press(store)
    store.advance_clock(3600)
    press(store)
    for number in range(0, 200, 10):
        assert store.get(b"%d" % number) == noise(20_000, number)
    assert pinned_bytes(store) == 20 * 20_000
    assert store.check().ok


def test_what_is_unpinned_is_evicted_like_all_else(store: BlockStore) -> None:
    store.set_retention(1, "lru")
    for number in range(100):
        store.put(b"%d" % number, noise(20_000, number), dataset=1)
    store.pin(b"7")
    press(store)
    assert store.get(b"7") == noise(20_000, 7)
    assert store.get(b"8") is None
    assert store.unpin(b"7")
    assert pinned_bytes(store) == 0
    press(store, dataset=1)
    assert store.get(b"7") is None


def test_pins_are_counted_once_and_missing_blocks_not_at_all(store: BlockStore) -> None:
    assert not store.pin(b"absent")
    assert not store.unpin(b"absent")
    store.put(b"k", bytes(1000))
    assert store.unpin(b"k")
    assert store.pin(b"k")
    assert store.pin(b"k")
    assert pinned_bytes(store) == 1000
    assert store.unpin(b"k")
    assert pinned_bytes(store) == 0


def pin_all(store: BlockStore, prefix: bytes = b"") -> int:
    """Put and pin blocks until one is refused; return how many were pinned."""
    number = 0
    while True:
        assert store.put(prefix + b"%d" % number, bytes(PIN_BYTES))
        try:
            store.pin(prefix + b"%d" % number)
        except PinLimit:
            return number
        number += 1


def test_above_80_percent_of_the_tier_a_pin_is_refused_with_the_figures(
    stores: Stores, store: BlockStore
) -> None:
    count = pin_all(store)
    limit = 16 * MIB // 100 * 80
    assert count == limit // (PIN_BYTES)
    with pytest.raises(PinLimit) as refused:
        store.pin(b"%d" % count)
    assert refused.value.errno == errno.EDQUOT
    for figure in (PIN_BYTES, count * PIN_BYTES, limit, stores.tier().path):
        assert str(figure) in str(refused.value)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    assert store.get(b"%d" % count) is not None
    assert store.views == 0


def test_what_is_unpinned_or_gone_makes_room_for_pins(store: BlockStore) -> None:
    count = pin_all(store)
    store.unpin(b"0")
    assert store.pin(b"%d" % count)
    store.delete(b"1")
    assert store.pin(b"0")
    store.expire(b"2", 0)
    store.advance_clock(2)
    maintain(store, lambda: not store.contains(b"2") and pinned_bytes(store) < count * PIN_BYTES)
    store.put(b"new", bytes(PIN_BYTES))
    assert store.pin(b"new")
    assert store.put(b"one more", bytes(PIN_BYTES))
    with pytest.raises(PinLimit):
        store.pin(b"one more")


@pytest.mark.parametrize("index", ["kept", "lost"])
def test_pins_and_their_limit_survive_a_reopen(stores: Stores, store: BlockStore, index: str) -> None:
    count = pin_all(store)
    store.close()
    if index == "lost":
        os.unlink(stores.path / "v1" / "index")
    store = rebuilt(stores.open(stores.tier(16 * MIB)))
    assert pinned_bytes(store) == count * PIN_BYTES
    with pytest.raises(PinLimit):
        store.pin(b"%d" % count)
    press(store)
    assert [store.contains(b"%d" % number) for number in range(count)] == [True] * count


def test_a_pinned_block_that_is_replaced_stays_pinned(store: BlockStore) -> None:
    store.put(b"k", b"value")
    store.pin(b"k")
    store.put(b"k", b"another")
    assert pinned_bytes(store) == len(b"another")
    press(store)
    assert store.get(b"k") == b"another"


def test_a_pin_does_not_keep_from_expiry_deletion_or_freeing(store: BlockStore) -> None:
    for name in (b"a", b"b", b"c"):
        store.put(name, b"value", ttl_s=5 if name == b"a" else None)
        store.pin(name)
    store.advance_clock(7)
    assert store.get(b"a") is None
    assert store.delete(b"b")
    store.free_dataset(0)
    assert store.get(b"c") is None
    store.maintain()
    assert pinned_bytes(store) == 0


def test_a_pin_set_while_a_reader_verifies_the_block_stays(stores: Stores, store: BlockStore) -> None:
    """The first read after a restart marks the slot as verified, and must not undo what was set meanwhile."""
    for number in range(50):
        store.put(b"%d" % number, noise(10_000, number), ttl_s=1000)
    store.close()
    first, second = stores.reopen(), stores.reopen()
    for number in range(50):
        assert first.pin(b"%d" % number)
        assert second.expire(b"%d" % number, None)
        assert second.get(b"%d" % number) == noise(10_000, number)
    assert pinned_bytes(first) == 50 * 10_000
    first.advance_clock(2000)
    assert [first.contains(b"%d" % number) for number in range(50)] == [True] * 50
