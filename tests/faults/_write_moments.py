"""kill -9 at random moments of writes, one after another, and everything looked at after each."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import boto3
import pytest
from moto.s3.models import s3_backends

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from tests._moto import begin_anew, connections, moto_server
from tests._s3 import BUCKET, give_keys
from tests.faults._child import Child, wait_until

BLOCK: Final = 256 * KIB
MOMENT_S: Final = 0.35
SIZES: Final = {"put": 3 * MIB + 7, "open": 17 * MIB + 5}

OpenCache = Callable[[], Cache]


def content(number: int, size: int) -> bytes:
    """Return what the write of that number writes, the same in every process."""
    return random.Random(number).randbytes(size)


class Source:
    """Where it is written to, looked at without the cache."""

    uri: str
    options: dict[str, Any]

    def bytes_of(self, path: str) -> bytes | None:
        raise AssertionError

    def left_over(self) -> list[str]:
        """Name what no finished write leaves."""
        raise AssertionError


class FolderSource(Source):
    def __init__(self, folder: Path) -> None:
        self.folder, self.uri, self.options = folder, folder.as_uri(), {}

    def bytes_of(self, path: str) -> bytes | None:
        file = self.folder / path
        return file.read_bytes() if file.exists() else None

    def left_over(self) -> list[str]:
        return [path.name for path in self.folder.rglob(".*")]


class BucketSource(Source):
    def __init__(self, url: str) -> None:
        self.uri, self.options = f"s3://{BUCKET}/p", {"endpoint_url": url}
        self._client = boto3.client("s3", endpoint_url=url)

    def bytes_of(self, path: str) -> bytes | None:
        key = s3_backends["123456789012"]["aws"].buckets[BUCKET].keys.get(f"p/{path}")
        return None if key is None else bytes(key.value)

    def left_over(self) -> list[str]:
        uploads = self._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        keys = s3_backends["123456789012"]["aws"].buckets[BUCKET].keys
        return [each["Key"] for each in uploads] + [key for key in keys if "probe" in key]


def opener(tmp_path: Path, memory_path: Path) -> OpenCache:
    """Return what opens the cache of a test."""
    tiers = [Tier(str(memory_path), 128 * MIB, "MEM")]
    staging = tmp_path / "staging"
    return lambda: Cache(tmp_path / "cache", tiers, block_bytes=BLOCK, staging_dir=staging)


@contextmanager
def source_of(kind: str, tmp_path: Path) -> Iterator[Source]:
    """Make a place that can be written, and is looked at without the cache: "file" or "s3"."""
    if kind == "file":
        (tmp_path / "source").mkdir()
        yield FolderSource(tmp_path / "source")
        return
    with pytest.MonkeyPatch.context() as patch, moto_server() as url:
        give_keys(patch)
        begin_anew()
        yield BucketSource(url)


def write(link: Connection, open_cache: OpenCache, numbers: range, size: int, how: str) -> None:
    """Body: write one number after another, telling before and after, until killed."""
    with open_cache() as cache:
        link.send("open")
        for number in numbers:
            data = content(number, size)
            link.send(("begun", number))
            if how == "put":
                cache.put("d/dir/a", data)
            else:
                with cache.open("d/dir/a", "wb") as file:
                    for start in range(0, size, MIB):
                        file.write(data[start : start + MIB])
            link.send(("done", number))


def drain(link: Connection) -> tuple[int, int]:
    """Return the numbers of the last write that was begun, and of the last that was acknowledged."""
    begun = done = -1
    while link.poll(0):
        try:
            message = link.recv()
        except EOFError:
            break
        if message != "open":
            what, number = message
            begun, done = (number, done) if what == "begun" else (begun, number)
    return begun, done


def left_on_disk(tmp_path: Path) -> list[str]:
    places = (tmp_path / "cache/v1/writes", tmp_path / "staging")
    return [
        path.name for place in places if place.exists() for path in place.iterdir() if path.suffix != ".lock"
    ]


@contextmanager
def opened_after(open_cache: OpenCache, tmp_path: Path, source: Source) -> Iterator[Cache]:
    """Open the cache as whoever comes next, and wait until it has removed what was left."""
    with open_cache() as cache:
        wait_until(lambda: left_on_disk(tmp_path) == [], f"{left_on_disk(tmp_path)} is removed")
        assert source.left_over() == []
        yield cache


def kill_at_moments(
    open_cache: OpenCache, source: Source, tmp_path: Path, moments: int, how: str, seed: int
) -> None:
    """Kill a writer so often, and look at storage and cache after each time.

    how: "put", by one request, or "open", by several.
    """
    rng, size = random.Random(seed), SIZES[how]
    with open_cache() as cache:
        cache.attach(
            "d", source.uri, max_age=None, writable=True, write_mode="cache_through", **source.options
        )
        cache.put("d/dir/a", content(0, size))
    last = 0
    for moment in range(moments):
        served = connections.count
        first = 1 + 1_000 * moment
        with Child(write, open_cache, range(first, first + 900), size, how) as child:
            assert child.receive() == "open"
            time.sleep(rng.uniform(0, MOMENT_S))
            child.kill()
            child.exit_code()
            begun, done = drain(child.link)
        wait_until(lambda: connections.count <= served, "its last requests are served")  # noqa: B023
        possible = {number: content(number, size) for number in {last, done, begun} if number >= 0}
        with opened_after(open_cache, tmp_path, source) as cache:
            found = source.bytes_of("dir/a")
            matching = [number for number, data in possible.items() if data == found]
            assert matching, f"{len(found or b'')} bytes of neither {last}, {done} nor {begun}"
            assert matching[0] >= done
            last = matching[0]
            assert bytes(cache.read("d/dir/a")) == found
            assert cache.listdir("d/dir") == ["a"]
            assert cache.check().ok
            status = cache.status()
            assert sum(tier["committed_bytes"] for tier in status["tiers"]) == status["committed_bytes"]
