"""Shared by the tests of mounts: a real S3 server, a cache on it, and mounts by processes of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.testing.s3 import S3Server
from tests.fuse._mount import Mounted

BLOCK_BYTES = 64 * KIB

# Makes a mount of a dataset with more arguments of the command; all are ended behind the test.
Mounting = Callable[..., Mounted]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    """The folder of a bucket, with a small tree in it."""
    folder = tmp_path / "buckets/bucket"
    for name, data in {
        "hello.txt": b"hello\n",
        "empty": b"",
        "sub/one.bin": os.urandom(100 * KIB),
        "sub/deep/two.bin": os.urandom(3 * BLOCK_BYTES + 17),
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def server(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A real S3 server of that bucket; its keys are in the environment, for mounts as well."""
    with S3Server(bucket.parent, live=True) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def cache(tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cache]:
    """An empty cache, which the environment names to processes that the test starts."""
    for name in [name for name in os.environ if name.startswith("FOREBAY_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "cache"
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(folder))
    with Cache(folder, [Tier(str(memory_path), 64 * MIB, "MEM")], block_bytes=BLOCK_BYTES) as cache:
        yield cache


@pytest.fixture
def attached(cache: Cache, server: S3Server) -> Cache:
    """The cache, with the bucket attached as the immutable dataset ``d``."""
    cache.attach("d", "s3://bucket", endpoint_url=server.endpoint_url, max_age=None)
    return cache


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mounting]:
    """Mount a dataset, by default ``d``; each time at a place of its own."""
    with ExitStack() as mounts:
        count = 0

        def mount(*arguments: str, what: str = "d") -> Mounted:
            nonlocal count
            count += 1
            return mounts.enter_context(Mounted(what, tmp_path / f"mnt{count}", *arguments))

        yield mount
