"""Shared by the integration tests: a cache directory with one small tier of memory, and command lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.testing.clock import ManualClock
from forebay.testing.faulty import FaultyStorage
from forebay.testing.s3 import S3Server
from tests.integration._cli import Cli
from tests.integration._sites import PATIENCE_S, OpenCache
from tests.integration._trees import TREE


@pytest.fixture
def open_cache(tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenCache]:
    """Open the test's cache directory, as often as wanted; closed at the end."""
    opened: list[Cache] = []
    # Whoever stands still for seconds is passed by, and what he fetches is fetched twice, what he has to say
    # lost. That is promised, and is tried where a test stops somebody; a busy machine stops anybody.
    monkeypatch.setattr("forebay.meta.entries._PATIENCE_S", PATIENCE_S)

    def open_one(**options: object) -> Cache:
        tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
        options = {"block_bytes": 64 * KIB, "stall_timeout_s": PATIENCE_S, **options}
        opened.append(Cache(tmp_path / "cache", tiers, **options))  # type: ignore[arg-type]  # any option
        return opened[-1]

    yield open_one
    for cache in opened:
        cache.close()


@pytest.fixture
def storage() -> FaultyStorage:
    """An under storage in memory with a small tree in it."""
    return FaultyStorage(TREE)


@pytest.fixture
def cache(open_cache: OpenCache, storage: FaultyStorage) -> Cache:
    """A cache with that storage attached as ``d``, to be checked at every use, and nothing asked since."""
    cache = open_cache(schemes=storage.schemes(), clock=ManualClock())
    cache.attach("d", "faulty://x", max_age=0)
    storage.calls.clear()
    return cache


@pytest.fixture
def cli(
    tmp_path: Path,
    memory_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Cli:
    """The command line, with nothing attached."""
    for name in [name for name in os.environ if name.startswith("FOREBAY_") or name == "COLUMNS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FOREBAY_TIERS", f"{memory_path}:64MiB:MEM")
    cli = Cli(tmp_path, capfdbinary)
    for name, data in {"a.bin": b"bytes of a", "sub/b.bin": os.urandom(100 * KIB), "sub/c": b""}.items():
        cli.write(name, data)
    return cli


@pytest.fixture
def attached(cli: Cli) -> Cli:
    """The command line, with a folder attached as ``d``."""
    assert cli("attach", "d", cli.uri).code == 0
    return cli


@pytest.fixture
def s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A real S3 server with the empty bucket ``bucket``; its keys are in the environment."""
    (tmp_path / "buckets/bucket").mkdir(parents=True)
    with S3Server(tmp_path / "buckets", live=True) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server
