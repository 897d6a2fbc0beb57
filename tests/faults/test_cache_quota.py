"""Loaders of a dataset with a quota are killed over and over: it holds, also for those who come after."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.testing.s3 import S3Server
from tests.faults._child import Child, wait_until

FILES: Final = 120
FILE_BYTES: Final = 100 * KIB
BLOCK_BYTES: Final = 64 * KIB
QUOTA: Final = 60 * FILE_BYTES
KILLS: Final = 8
LOADERS: Final = 2
REQUESTS: Final = 4

Open = Callable[[], Cache]


@pytest.fixture
def open_cache(tmp_path: Path, memory_path: Path) -> Open:
    def open_one() -> Cache:
        tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
        return Cache(tmp_path / "cache", tiers, block_bytes=BLOCK_BYTES, in_flight_max=REQUESTS)

    return open_one


def load_again_and_again(link: Connection, open_cache: Open) -> None:
    with open_cache() as cache:
        link.send("open")
        while True:
            cache.load("d").wait()
            cache.free("d")


def cached_bytes(cache: Cache) -> int:
    return int(cache.status()["committed_bytes"])


def test_killed_loaders_never_exceed_it(
    tmp_path: Path, open_cache: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random.Random(seed := random.randrange(1 << 30))
    print(f"seed {seed}")
    (tmp_path / "buckets/bucket").mkdir(parents=True)
    for number in range(FILES):
        (tmp_path / f"buckets/bucket/f{number}").write_bytes(os.urandom(FILE_BYTES))
    # A block for each request that may be published just then.
    slack = LOADERS * REQUESTS * BLOCK_BYTES
    with S3Server(tmp_path / "buckets") as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        with open_cache() as cache:
            cache.attach("d", "s3://bucket", endpoint_url=server.endpoint_url, quota=QUOTA)
            for _ in range(KILLS):
                with (
                    Child(load_again_and_again, open_cache) as one,
                    Child(load_again_and_again, open_cache) as two,
                ):
                    assert (one.receive(), two.receive()) == ("open", "open")
                    some = source.randrange(1, QUOTA // 2)
                    wait_until(lambda: cached_bytes(cache) >= some, "the loaders go on")  # noqa: B023
                    for child in (one, two):
                        child.kill()
                        child.exit_code()
                assert cached_bytes(cache) <= QUOTA + slack
        # All have gone; whoever opens it next tells the store anew.
        with open_cache() as cache:
            assert cached_bytes(cache) <= QUOTA + slack
            cache.free("d")
            result = cache.load("d").wait(60)
            assert result.state == "incomplete"
            assert QUOTA - FILE_BYTES <= cached_bytes(cache) <= QUOTA + slack
            assert cache.check().ok
