"""Policies through the cache: pins, times, admission, freshness and retention by path."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.cache.policies.policy import Policy
from forebay.config import KIB
from forebay.errors import ConfigError, NotAttached, PinLimit
from forebay.testing.clock import ManualClock
from forebay.testing.faulty import FaultyStorage
from tests.integration._sites import OpenCache

BLOCK = 64 * KIB
OBJECTS = {
    "a": b"1",
    "train/x": b"x" * 100,
    "train/y": b"y" * (3 * BLOCK + 1),
    "train/deep/z": b"z" * 50,
    "val/w": b"w" * 70,
}
BLOCKS = {"a": 1, "train/x": 1, "train/y": 4, "train/deep/z": 1, "val/w": 1}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage(dict(OBJECTS))


@pytest.fixture
def cache(open_cache: OpenCache, storage: FaultyStorage, clock: ManualClock) -> Cache:
    cache = open_cache(schemes=storage.schemes(), clock=clock)
    cache.attach("d", "faulty://x", max_age=None)
    return cache


def read_all(cache: Cache) -> None:
    for path, data in OBJECTS.items():
        assert cache.read(f"d/{path}") == data


def pinned_bytes(cache: Cache) -> int:
    return sum(int(tier["pinned_bytes"]) for tier in cache.status()["tiers"])


def cached_bytes(cache: Cache, path: str) -> int:
    return cache.usage(path).cached_bytes


def size_below(path: str) -> int:
    return sum(len(data) for name, data in OBJECTS.items() if f"{name}/".startswith(f"{path}/"))


def test_a_pin_is_of_what_is_cached_and_of_what_comes(cache: Cache) -> None:
    assert cache.read("d/train/x") == OBJECTS["train/x"]
    assert cache.pin("d/train") == 1
    assert pinned_bytes(cache) == len(OBJECTS["train/x"])
    read_all(cache)
    assert pinned_bytes(cache) == size_below("train")
    assert cache.pin("d/train") == sum(count for name, count in BLOCKS.items() if name.startswith("train/"))


def test_unpin_is_of_all_below(cache: Cache) -> None:
    cache.pin("d/train/deep")
    cache.pin("d/train/x")
    read_all(cache)
    assert cache.unpin("d/train") == 6
    assert pinned_bytes(cache) == 0
    assert cache.policies("d") == {}


def test_unpin_below_a_pin(cache: Cache) -> None:
    cache.pin("d")
    cache.unpin("d/train")
    read_all(cache)
    assert pinned_bytes(cache) == size_below("a") + size_below("val")
    assert cache.policies("d") == {"d": Policy(pin=True), "d/train": Policy(pin=False)}


def test_a_pin_beyond_the_limit_is_refused_and_nothing_is_said(open_cache: OpenCache) -> None:
    storage = FaultyStorage({f"big/{number:02}": b"b" * (4 * BLOCK) for number in range(230)})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    assert cache.load("d").wait().ok
    cache.set_policy("d/big", pin=False, ttl_s=1000)
    with pytest.raises(PinLimit, match="80"):
        cache.pin("d/big")
    assert pinned_bytes(cache) == 0
    assert cache.policies("d") == {"d/big": Policy(pin=False, ttl_s=1000.0)}


def test_a_time_is_of_what_is_cached_and_of_what_comes(cache: Cache) -> None:
    assert cache.read("d/train/x") == OBJECTS["train/x"]
    assert cache.ttl("d/train", 100) == 1
    read_all(cache)
    cache._store.advance_clock(101)
    assert cached_bytes(cache, "d/train") == 0
    assert cached_bytes(cache, "d/val") == size_below("val")
    read_all(cache)
    assert cache.ttl("d/train", None) == 6
    cache._store.advance_clock(1000)
    assert cached_bytes(cache, "d") == sum(map(len, OBJECTS.values()))
    assert cache.policies("d") == {}


def test_never_below_a_time(cache: Cache) -> None:
    cache.ttl("d", 10)
    cache.ttl("d/train", None)
    read_all(cache)
    cache._store.advance_clock(11)
    assert cached_bytes(cache, "d") == size_below("train")


def test_what_is_skipped_is_served_and_not_kept(cache: Cache, storage: FaultyStorage) -> None:
    cache.set_policy("d/train", skip=True)
    cache.set_policy("d/train/deep", skip=False)
    for _ in range(2):
        read_all(cache)
    assert cached_bytes(cache, "d") == sum(map(len, OBJECTS.values())) - size_below("train/x") - size_below(
        "train/y"
    )
    result = cache.load("d").wait()
    assert (result.state, result.progress.files_not_admitted) == ("incomplete", 2)
    assert {each.error for each in cache.jobs()[-1].results()} == {"its policy says that it is not cached"}


def test_small_reads_only(cache: Cache) -> None:
    cache.set_policy("d", read_bytes_max=1000)
    read_all(cache)
    assert cached_bytes(cache, "d/train/y") == 0
    assert cached_bytes(cache, "d/train/x") == len(OBJECTS["train/x"])
    assert cache.read("d/train/y", 10, 1000) == OBJECTS["train/y"][10:1010]
    assert cached_bytes(cache, "d/train/y") == BLOCK
    with cache.open("d/train/y") as file:
        assert file.read() == OBJECTS["train/y"]
    assert cached_bytes(cache, "d/train/y") == BLOCK
    assert cache.load("d/train").wait().ok
    assert cached_bytes(cache, "d/train/y") == len(OBJECTS["train/y"])


def test_freshness_by_path(cache: Cache, storage: FaultyStorage, clock: ManualClock) -> None:
    read_all(cache)
    cache.set_policy("d/train", max_age=10)
    cache.set_policy("d/train/deep", max_age="immutable")
    storage.calls.clear()
    read_all(cache)
    assert not storage.calls
    clock.advance(11)
    storage.put("train/x", b"new")
    storage.put("train/deep/z", b"new")
    storage.put("val/w", b"new")
    assert cache.read("d/train/x") == b"new"
    assert cache.read("d/train/deep/z") == OBJECTS["train/deep/z"]
    assert cache.read("d/val/w") == OBJECTS["val/w"]
    cache.clear_policy("d/train")
    cache.set_policy("d", max_age=0)
    assert cache.read("d/val/w") == b"new"


def test_retention_by_path_is_the_stores(cache: Cache) -> None:
    cache.set_policy("d/train", retention="lru")
    read_all(cache)
    cache.free("d")
    assert cached_bytes(cache, "d") == 0
    read_all(cache)
    cache.detach("d")
    assert cache.status()["blocks"] == 0


def test_another_process_and_another_opening_follow(
    open_cache: OpenCache, cache: Cache, storage: FaultyStorage
) -> None:
    other = open_cache(schemes=storage.schemes())
    assert other.policy("d/train/x") == Policy()
    cache.set_policy("d/train", skip=True)
    assert other.policy("d/train/x") == Policy(skip=True)
    assert other.policy("d/trainer") == Policy()
    assert pickle.loads(pickle.dumps(other.policies("d"))) == {"d/train": Policy(skip=True)}


def test_what_is_said_goes_with_the_dataset(cache: Cache) -> None:
    cache.pin("d/train")
    cache.detach("d")
    cache.attach("d", "faulty://x")
    assert cache.policies("d") == {}
    with pytest.raises(NotAttached):
        cache.pin("e")


@pytest.mark.parametrize("fields", [{"pins": True}, {"retention": "mru"}, {"ttl_s": -1}])
def test_nonsense_is_refused_and_nothing_said(cache: Cache, fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        cache.set_policy("d", **fields)
    assert cache.policies("d") == {}


def test_taking_one_word_back(cache: Cache) -> None:
    cache.set_policy("d/a", pin=True, ttl_s=5)
    assert cache.set_policy("d/a", pin=None) == Policy(ttl_s=5.0)
    assert cache.set_policy("d/a", ttl_s=None) == Policy()
    assert cache.policies("d") == {}
