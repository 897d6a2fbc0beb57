"""Calls for many keys: what one call for each would do, and pins that go in together or not at all."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import pytest

from forebay.config import MIB
from forebay.errors import Closed, PinLimit
from forebay.store import BlockStore
from tests.unit._stores import Stores, counted, noise

PIN_BYTES = 50_000
LIMIT = 16 * MIB // 100 * 80


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    return stores.open(stores.tier(16 * MIB))


def keys(count: int, first: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(first, first + count)]


def pinned_bytes(store: BlockStore) -> int:
    return int(store.status()["tiers"][0]["pinned_bytes"])


def test_a_batch_answers_how_many_were_there(store: BlockStore) -> None:
    for number in range(100):
        store.put(b"%d" % number, bytes(number))
    asked = keys(150)
    assert store.pin_many(asked) == 100
    assert pinned_bytes(store) == sum(range(100))
    assert store.unpin_many(asked[:20]) == 20
    assert pinned_bytes(store) == sum(range(20, 100))
    assert store.expire_many(iter(asked[:30]), 5) == 30
    assert store.expire_many(asked[:10], None) == 10
    store.advance_clock(7)
    there = store.contains_many(asked)
    assert there == bytes([1] * 10 + [0] * 20 + [1] * 70 + [0] * 50)
    assert [bool(one) for one in there] == [store.contains(key) for key in asked]
    assert store.delete_many(asked) == 80
    assert store.contains_many(asked) == bytes(150)
    assert counted(store)["deleted"] == 80
    assert store.check().ok


def test_the_key_that_is_given_twice_counts_once(store: BlockStore) -> None:
    store.put(b"k", b"value")
    twice = [b"k", b"k", b"k"]
    assert store.pin_many(twice) == 1
    assert store.unpin_many(twice) == 1
    assert store.expire_many(twice, 100) == 1
    assert store.contains_many(twice) == b"\1\1\1"
    assert store.delete_many(twice) == 1


def test_a_batch_of_nothing_does_nothing(store: BlockStore) -> None:
    assert store.contains_many([]) == b""
    assert store.pin_many([]) == store.unpin_many(()) == store.delete_many(iter([])) == 0
    assert store.expire_many([], 1) == 0


def test_pins_beyond_the_limit_are_refused_together_with_the_figures(
    stores: Stores, store: BlockStore
) -> None:
    count = LIMIT // PIN_BYTES
    for key in keys(count + 5):
        assert store.put(key, bytes(PIN_BYTES))
    assert store.pin(b"3")
    with pytest.raises(PinLimit) as refused:
        store.pin_many(keys(count + 1))
    for figure in (count * PIN_BYTES, PIN_BYTES, LIMIT, stores.tier().path):
        assert str(figure) in str(refused.value)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    assert pinned_bytes(store) == PIN_BYTES, "what was pinned before, and nothing else"
    assert store.pin_many(keys(count)) == count
    with pytest.raises(PinLimit):
        store.pin(b"%d" % count)
    assert store.unpin_many(keys(2)) == 2
    assert store.pin_many(keys(2, count)) == 2
    assert pinned_bytes(store) == count * PIN_BYTES
    assert store.views == 0


def test_pins_of_a_batch_survive_a_reopen(stores: Stores, store: BlockStore) -> None:
    for key in keys(40):
        store.put(key, noise(1000, int(key)))
    store.pin_many(keys(30))
    store.close()
    again = stores.reopen()
    assert pinned_bytes(again) == 30_000
    assert again.pin_many(keys(40)) == 40
    assert all(again.get(key) == noise(1000, int(key)) for key in keys(40))


def pin_and_die(path: Path) -> None:
    store = BlockStore(path, maintainer=False)
    store.pin_many(keys(LIMIT // PIN_BYTES))
    os._exit(0)


def test_what_a_dead_process_had_pinned_is_counted_once(stores: Stores, store: BlockStore) -> None:
    count = LIMIT // PIN_BYTES
    for key in keys(count + 1):
        assert store.put(key, bytes(PIN_BYTES))
    child = multiprocessing.get_context("spawn").Process(target=pin_and_die, args=(stores.path,))
    child.start()
    child.join(60)
    assert pinned_bytes(store) == count * PIN_BYTES
    assert store.pin_many(keys(count)) == count
    store.unpin(b"0")
    assert store.pin(b"%d" % count)
    assert pinned_bytes(store) == count * PIN_BYTES


@pytest.mark.parametrize("name", ["pin_many", "unpin_many", "delete_many", "contains_many"])
def test_bad_keys_are_refused_before_anything_is_done(store: BlockStore, name: str) -> None:
    call = getattr(store, name)
    store.put(b"k", b"value")
    for bad, error in (
        (b"", ValueError),
        (bytes(5000), ValueError),
        ("k", TypeError),
        (None, TypeError),
        (7, TypeError),
    ):
        with pytest.raises(error):
            call([b"k", bad])
    with pytest.raises(TypeError):
        call(None)
    assert store.contains(b"k")
    assert pinned_bytes(store) == 0
    assert store.views == 0


def test_a_negative_ttl_is_refused_for_all(store: BlockStore) -> None:
    store.put(b"k", b"value")
    with pytest.raises(ValueError, match="-1"):
        store.expire_many([b"k"], -1)
    store.advance_clock(10)
    assert store.contains(b"k")


def test_a_batch_needs_an_open_store_with_a_row(stores: Stores, store: BlockStore) -> None:
    store.put(b"k", b"value")
    reader = stores.reopen(read_only=True)
    assert reader.contains_many([b"k", b"l"]) == b"\1\0"
    for call in (reader.pin_many, reader.unpin_many, reader.delete_many):
        with pytest.raises(PermissionError):
            call([b"k"])
    with pytest.raises(PermissionError):
        reader.expire_many([b"k"], 1)
    reader.close()
    store.close()
    with pytest.raises(Closed):
        store.contains_many([b"k"])
