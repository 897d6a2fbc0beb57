"""Shared by the tests of schedules: a cache of three objects, and a watcher whose clock stands still."""

from __future__ import annotations

import pytest

from forebay.cache import Cache
from forebay.testing.faulty import FaultyStorage
from tests.integration._schedules import WallClock, Watch
from tests.integration._sites import OpenCache


@pytest.fixture
def storage() -> FaultyStorage:
    """An under storage in memory with three objects."""
    return FaultyStorage({"a": b"a", "sub/b": b"bb", "sub/c.txt": b"ccc"})


@pytest.fixture
def cache(open_cache: OpenCache, storage: FaultyStorage) -> Cache:
    """A cache with that storage attached as ``d``, taken never to change."""
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    return cache


@pytest.fixture
def clock() -> WallClock:
    """A wall clock that stands still."""
    return WallClock()


@pytest.fixture
def watch(cache: Cache, clock: WallClock) -> Watch:
    """A watcher of the cache's schedules that goes by the clock."""
    return Watch(cache, clock)
