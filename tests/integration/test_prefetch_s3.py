"""Prefetch, record and replay over a real S3 server: one GET an object, and the recorded order comes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.testing.proxy import Proxy
from forebay.testing.s3 import S3Server
from tests.integration._sites import OpenCache, proxy_of, write_files

OBJECTS = {f"part{number % 3}/{number:03}": os.urandom(5_000 + number) for number in range(60)}
PATHS = [f"d/{name}" for name in reversed(OBJECTS)]


@pytest.fixture
def proxy(s3_server: S3Server, tmp_path: Path) -> Iterator[Proxy]:
    write_files(tmp_path / "buckets/bucket", OBJECTS)
    with proxy_of(s3_server) as proxy:
        yield proxy


@pytest.fixture
def cache(open_cache: OpenCache, proxy: Proxy) -> Cache:
    cache = open_cache()
    cache.attach("d", "s3://bucket", endpoint_url=proxy.url, max_age=None)
    return cache


def gets(proxy: Proxy) -> int:
    return int(proxy.stats(reset=True)["requests_by_method"].get("GET", 0))


def check_all(cache: Cache) -> None:
    found = [(path, bytes(view)) for path, view in cache.prefetch(PATHS)]
    assert found == [(path, OBJECTS[path[2:]]) for path in PATHS]


@pytest.mark.parametrize("known", [True, False])
def test_one_get_an_object(cache: Cache, proxy: Proxy, known: bool) -> None:
    if known:
        cache.load("d", metadata_only=True, wait=True)
    gets(proxy)
    check_all(cache)
    assert gets(proxy) == len(OBJECTS)
    check_all(cache)
    assert gets(proxy) == 0


def test_what_was_recorded_is_replayed(cache: Cache, proxy: Proxy) -> None:
    with cache.record("epoch-1"):
        check_all(cache)
    cache.free("d")
    gets(proxy)
    assert cache.load("d", order="epoch-1", wait=True).result().ok
    assert gets(proxy) == len(OBJECTS)
    check_all(cache)
    assert gets(proxy) == 0
    assert [f"d/{path}" for path in cache._runtime().manifests.order("d", "epoch-1")] == PATHS
