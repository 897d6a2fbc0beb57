"""The terms on which a block is taken in: pinned from the first moment, and on which medium."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from forebay.config import KIB, MIB
from forebay.errors import ConfigError, PinLimit
from forebay.store import BlockStore
from tests.unit._stores import Stores, noise, rebuilt

QUOTA = 16 * MIB
LIMIT = QUOTA // 100 * 80
LENGTH = 50_000
BLOCK = 64 * KIB
FILE_BLOCKS = 20

Put = Callable[..., bool]


def by_put(store: BlockStore, key: bytes, data: bytes, **terms: object) -> bool:
    return store.put(key, data, **terms)  # type: ignore[arg-type]


def by_reservation(store: BlockStore, key: bytes, data: bytes, **terms: object) -> bool:
    reservation = store.reserve(key, len(data), **terms)  # type: ignore[arg-type]
    memoryview(reservation)[:] = data
    return reservation.commit()


def put_file(store: BlockStore, name: bytes = b"f", **terms: object) -> bool:
    data = noise(FILE_BLOCKS * BLOCK)
    with store.reserve_file(name, len(data), block_bytes=BLOCK, **terms) as file:  # type: ignore[arg-type]
        for number in range(FILE_BLOCKS):
            file.write(number, name + b"/%d" % number, data[number * BLOCK : (number + 1) * BLOCK])
    return bool(file.complete)


def pinned_bytes(store: BlockStore) -> int:
    return sum(int(tier["pinned_bytes"]) for tier in store.status()["tiers"])


def committed(store: BlockStore) -> dict[str, int]:
    return {tier["medium"]: int(tier["committed_bytes"]) for tier in store.status()["tiers"]}


@pytest.fixture(params=[by_put, by_reservation])
def put(request: pytest.FixtureRequest) -> Put:
    chosen: Put = request.param
    return chosen


@pytest.mark.parametrize("index", ["kept", "lost"])
def test_a_block_is_pinned_as_it_is_admitted_and_stays_so(stores: Stores, put: Put, index: str) -> None:
    store = stores.open(stores.tier(QUOTA))
    assert put(store, b"k", noise(LENGTH), pinned=True)
    assert put(store, b"l", noise(LENGTH))
    assert pinned_bytes(store) == LENGTH
    store.close()
    if index == "lost":
        os.unlink(stores.path / "v1" / "index")
    store = rebuilt(stores.open(stores.tier(QUOTA)))
    assert pinned_bytes(store) == LENGTH
    assert store.get(b"k") == noise(LENGTH)
    assert store.unpin(b"k")
    assert pinned_bytes(store) == 0
    assert store.check().ok


def test_what_is_pinned_at_once_is_never_evicted(stores: Stores, put: Put) -> None:
    store = stores.open(stores.tier(QUOTA))
    store.set_retention(0, "lru")
    for number in range(1000):
        assert put(store, b"%d" % number, noise(20_000, number), pinned=number % 50 == 0)
        store.maintain()
    kept = [number for number in range(1000) if store.contains(b"%d" % number)]
    assert set(range(0, 1000, 50)) <= set(kept)
    assert len(kept) < 1000
    assert pinned_bytes(store) == 20 * 20_000


def test_where_the_pin_does_not_fit_the_block_is_admitted_without(stores: Stores, put: Put) -> None:
    store = stores.open(stores.tier(QUOTA))
    count = LIMIT // LENGTH
    for number in range(count + 5):
        assert put(store, b"%d" % number, bytes(LENGTH), pinned=True)
    assert pinned_bytes(store) == count * LENGTH
    with pytest.raises(PinLimit):
        store.pin(b"%d" % count)
    store.delete(b"0")
    store.pin(b"%d" % count)
    assert pinned_bytes(store) == count * LENGTH


def test_a_block_that_is_put_again_without_a_pin_keeps_the_one_it_has(stores: Stores, put: Put) -> None:
    store = stores.open(stores.tier(QUOTA))
    assert put(store, b"k", bytes(100), pinned=True)
    assert put(store, b"k", bytes(300))
    assert pinned_bytes(store) == 300
    assert put(store, b"k", bytes(200), pinned=True)
    assert pinned_bytes(store) == 200


def test_a_reservation_that_is_given_up_pins_nothing(stores: Stores) -> None:
    store = stores.open(stores.tier(QUOTA))
    for _ in range(10):
        store.reserve(b"k", LENGTH, pinned=True).abandon()
    assert put_until_refused(store) == LIMIT // LENGTH


def put_until_refused(store: BlockStore) -> int:
    """Put blocks and pin them; return how many pins fit."""
    number = 0
    while True:
        assert store.put(b"until %d" % number, bytes(LENGTH))
        try:
            store.pin(b"until %d" % number)
        except PinLimit:
            return number
        number += 1


def test_all_blocks_of_a_file_are_pinned(stores: Stores) -> None:
    store = stores.open(stores.tier(64 * MIB))
    assert put_file(store, pinned=True)
    assert pinned_bytes(store) == FILE_BLOCKS * BLOCK
    assert store.get_file(b"f") == noise(FILE_BLOCKS * BLOCK)
    store.close()
    store = stores.reopen()
    assert pinned_bytes(store) == FILE_BLOCKS * BLOCK
    assert store.get_file(b"f") == noise(FILE_BLOCKS * BLOCK)
    assert store.unpin_many([b"f/%d" % number for number in range(FILE_BLOCKS)]) == FILE_BLOCKS
    assert pinned_bytes(store) == 0


def test_a_file_whose_pins_do_not_all_fit_is_admitted_without(stores: Stores) -> None:
    store = stores.open(stores.tier(32 * MIB))
    fits = 32 * MIB // 100 * 80 - FILE_BLOCKS * BLOCK + 1
    for number in range(fits // LENGTH + 1):
        assert store.put(b"%d" % number, bytes(LENGTH), pinned=True)
    before = pinned_bytes(store)
    assert put_file(store, pinned=True)
    assert pinned_bytes(store) == before
    store.free_dataset(0)
    several = [b"s%d" % number for number in range(FILE_BLOCKS * BLOCK // LENGTH + 1)]
    for key in several:
        store.put(key, bytes(LENGTH))
    assert store.pin_many(several) == len(several), "which counts; a put would wait a second for that"
    store.unpin_many(several)
    assert put_file(store, b"g", pinned=True)
    assert pinned_bytes(store) == FILE_BLOCKS * BLOCK


def test_room_for_the_pins_of_a_file_is_given_back_with_it(stores: Stores) -> None:
    store = stores.open(stores.tier(32 * MIB))
    for ended in ("finish", "dropped"):
        file = store.reserve_file(b"f", FILE_BLOCKS * BLOCK, block_bytes=BLOCK, pinned=True)
        for number in range(3):
            assert file.write(number, b"f/%d" % number, noise(BLOCK, number))
        assert pinned_bytes(store) == 3 * BLOCK
        if ended == "finish":
            assert not file.finish(keep=False)
        del file
        assert pinned_bytes(store) == 0
    assert put_until_refused(store) == 32 * MIB // 100 * 80 // LENGTH


@pytest.mark.parametrize("medium", ["MEM", "SSD", "HDD"])
def test_the_medium_that_was_asked_for_is_tried_first(stores: Stores, put: Put, medium: str) -> None:
    store = stores.open(stores.tier(), stores.tier(medium="SSD"), stores.tier(medium="HDD"))
    for number in range(10):
        assert put(store, b"%d" % number, noise(LENGTH, number), medium=medium)
    assert put_file(store, medium=medium)
    expected = {"MEM": 0, "SSD": 0, "HDD": 0} | {medium: 10 * LENGTH + FILE_BLOCKS * BLOCK}
    assert committed(store) == expected
    assert all(store.get(b"%d" % number) == noise(LENGTH, number) for number in range(10))


def test_a_full_medium_or_one_that_is_not_there_gives_the_others(stores: Stores, put: Put) -> None:
    store = stores.open(stores.tier(), stores.tier(4 * MIB, medium="SSD"))
    for number in range(100):
        assert put(store, b"%d" % number, bytes(LENGTH), medium="SSD")
    media = committed(store)
    assert media["SSD"] > 2 * MIB
    assert media["MEM"] == 100 * LENGTH - media["SSD"]
    assert put(store, b"k", bytes(LENGTH), medium="HDD")
    assert committed(store)["MEM"] == media["MEM"] + LENGTH


@pytest.mark.parametrize("medium", ["mem", "", "TAPE"])
def test_an_unknown_medium_is_refused_with_what_there_is(stores: Stores, medium: str) -> None:
    store = stores.open()
    with pytest.raises(ConfigError, match=f"{medium!r}.*MEM, SSD, HDD"):
        store.put(b"k", b"value", medium=medium)
    with pytest.raises(ConfigError):
        store.reserve(b"k", 5, medium=medium)
    with pytest.raises(ConfigError):
        store.reserve_file(b"k", 5, medium=medium)
    assert not store.contains(b"k")
    assert store.views == 0
