"""Random reads and writes of a mount against a reference copy; tests/stress has the long run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from tests.fuse._random_reads import RandomReads
from tests.fuse._random_writes import RandomWrites
from tests.fuse._small import fill, small_cache
from tests.fuse.conftest import Mounting

READS = 3_000
WRITES = 400


@pytest.fixture
def small(tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    with small_cache(tmp_path / "cache", memory_path, monkeypatch) as cache:
        yield cache


def test_random_reads(small: Cache, tmp_path: Path, mounted: Mounting) -> None:
    contents = fill(tmp_path / "source")
    small.attach("d", (tmp_path / "source").as_uri(), max_age=None, retention="s3fifo")
    RandomReads(mounted().path, contents, 1, lambda name: small.free(f"d/{name}")).run(READS)
    assert small.status()["counters"]["evicted"] > 0


def test_random_writes(small: Cache, tmp_path: Path, mounted: Mounting) -> None:
    source = tmp_path / "source"
    source.mkdir()
    small.attach("d", source.as_uri(), writable=True, retention="s3fifo")
    RandomWrites(mounted().path, source, 1).run(WRITES)
