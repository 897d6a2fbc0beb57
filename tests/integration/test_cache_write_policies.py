"""Writes beside what else is said of a dataset: its manifests, and the policies of its paths."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from forebay.cache import Cache
from forebay.config import KIB
from forebay.errors import ConfigError, Stale
from forebay.testing.faulty import FaultyStorage
from tests.integration._sites import OpenCache, counters

DATA = b"d" * (100 * KIB)


@pytest.fixture
def storage() -> FaultyStorage:
    return FaultyStorage({"a": b"old", "b": b"of b"})


@pytest.fixture
def cache(open_cache: OpenCache, storage: FaultyStorage) -> Cache:
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None, writable=True, write_mode="cache_through")
    return cache


def changes_of(cache: Cache, path: str) -> list[Callable[[], object]]:
    return [
        lambda: cache.put(path, b"new"),
        lambda: cache.open(path, "wb"),
        lambda: cache.open(path, "xb"),
        lambda: cache.delete(path),
        lambda: cache.delete(path, recursive=True),
        lambda: cache.rename(path, f"{path}2"),
        lambda: cache.mkdir(f"{path}3"),
    ]


def test_what_shows_a_manifest_is_not_written_to(cache: Cache, storage: FaultyStorage) -> None:
    cache.load("d", manifest="v1").wait()
    file = cache.open("d@v1/a")
    storage.calls.clear()
    for path, words in (("d/a", "shows manifest 'v1'"), ("d@v1/a", "d@v1 is a version")):
        for change in changes_of(cache, path):
            with pytest.raises(PermissionError, match=words) as caught:
                change()
            assert caught.value.errno == errno.EROFS
    assert sum(storage.calls.values()) == 0
    cache.use_manifest("d", None)
    with pytest.raises(PermissionError, match="d@v1 is a version"):
        cache.rename("d/a", "d@v1/c")
    assert (file.read(), bytes(cache.read("d/a"))) == (b"old", b"old")


def test_older_versions_keep_what_is_cached_of_them(cache: Cache) -> None:
    cache.load("d", manifest="v1").wait()
    cache.use_manifest("d", None)
    cache.free("d/b")
    cache.put("d/a", b"newer")
    cache.put("d/b", b"newer b")
    assert bytes(cache.read("d/a")) == b"newer"
    # In its own version as ever, from the cache; and what is not cached is never the newer one.
    assert bytes(cache.read("d@v1/a")) == b"old"
    with pytest.raises(Stale, match="v1"):
        cache.read("d@v1/b")
    cache.use_manifest("d", "v1")
    assert bytes(cache.read("d/a")) == b"old"


def test_a_manifest_put_in_use_before_a_file_is_closed(cache: Cache, storage: FaultyStorage) -> None:
    file = cache.open("d/a", "wb")
    file.write(b"new")
    cache.load("d", manifest="v1").wait()
    with pytest.raises(PermissionError, match="shows manifest 'v1'"):
        file.close()
    assert (storage.calls["put"], bytes(cache.read("d/a"))) == (0, b"old")


def test_writable_and_manifest_only_exclude_each_other(cache: Cache) -> None:
    with pytest.raises(ConfigError, match="not with manifest_only"):
        cache.attach("e", "faulty://x", writable=True, manifest_only=True)
    with pytest.raises(ConfigError, match="writable: 1 is neither True nor False"):
        cache.attach("e", "faulty://x", writable=1)  # type: ignore[arg-type]


def test_what_is_kept_goes_by_its_policies(cache: Cache) -> None:
    cache.set_policy("d/skipped", skip=True)
    cache.set_policy("d/small", read_bytes_max="1KiB")
    cache.pin("d/pinned")
    for directory in ("skipped", "small", "pinned"):
        cache.put(f"d/{directory}/a", DATA)
    # Reads alone are held to be small: what is written is kept as what a load brings.
    cached = {name: cache.usage(f"d/{name}").cached_bytes for name in ("skipped", "small", "pinned")}
    assert cached == {"skipped": 0, "small": len(DATA), "pinned": len(DATA)}
    assert sum(tier["pinned_bytes"] for tier in cache.status()["tiers"]) >= len(DATA)
    requests = counters(cache)["source_requests"]
    assert cache.read("d/pinned/a") == DATA
    assert counters(cache)["source_requests"] == requests
    assert cache.read("d/skipped/a") == DATA
    # What was refused when it was written is missed for that.
    assert (counters(cache)["misses_not_admitted"], counters(cache)["misses_cold"]) == (2, 0)
