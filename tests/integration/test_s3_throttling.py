"""A server that asks for patience gets it: slower, together, and not for longer than needed."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from forebay.errors import UnderStorageError
from forebay.ufs.s3 import S3Storage
from tests._s3 import FakeS3, Handler, give_keys
from tests.integration._sites import OpenCache


class Gate:
    """Lets so many requests a second pass, and refuses the others as S3 does.

    The first is refused however few there are: on a busy machine they may come slower than is allowed.
    """

    def __init__(self, requests_per_s: float, status: int, code: str) -> None:
        self.interval_s = 1.0 / requests_per_s
        self.status = status
        self.code = code
        self.refused = 0
        self._lock = threading.Lock()
        self._free_at_s = 0.0
        self._has_begun = False

    def __call__(self, handler: Handler) -> bool:
        with self._lock:
            now_s = time.monotonic()
            passed = self._has_begun and now_s >= self._free_at_s - 5 * self.interval_s
            self._has_begun = True
            if passed:
                self._free_at_s = max(self._free_at_s, now_s) + self.interval_s
            else:
                self.refused += 1
        if not passed:
            handler.refuse(self.status, self.code)
        return not passed


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    give_keys(monkeypatch)
    with FakeS3() as server:
        server.fill([f"{number:03}" for number in range(200)], b"data")
        yield server


def read(storage: S3Storage, path: str) -> bytes:
    with storage.read_range(path, 0, 100) as body:
        buffer = bytearray(body.length)
        body.readinto(memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (429, "TooManyRequests")])
def test_all_reads_come_through_a_server_that_throttles(server: FakeS3, status: int, code: str) -> None:
    storage = S3Storage("s3://bucket", {"endpoint_url": server.url})
    gate = Gate(100, status, code)
    server.interfere = gate
    rates: list[float | None] = [storage.requests_per_s]

    def read_one(path: str) -> bytes:
        data = read(storage, path)
        rates.append(storage.requests_per_s)
        return data

    paths = sorted(server.objects)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(read_one, paths)) == [b"data"] * len(paths)
    assert storage.counts()["throttled"] == gate.refused > 0
    # Half of what comes is not refused: it is slower by itself, not only by being refused.
    assert gate.refused < len(paths)
    assert rates[0] is None
    limited = min(rate for rate in rates if rate is not None)
    server.interfere = None
    deadline_s = time.monotonic() + 60
    while (storage.requests_per_s or math.inf) <= limited:
        assert time.monotonic() < deadline_s
        read(storage, paths[0])
    storage.close()


def test_a_server_that_always_refuses_is_given_up(server: FakeS3) -> None:
    storage = S3Storage("s3://bucket", {"endpoint_url": server.url, "attempts": 1})
    server.interfere = lambda handler: handler.refuse(503, "SlowDown")
    with pytest.raises(UnderStorageError, match="SlowDown"):
        read(storage, "000")
    assert len(server.requests) == 3
    storage.close()


def test_a_fixed_rate_holds_for_all_datasets_on_a_server(server: FakeS3) -> None:
    options = {"endpoint_url": server.url}
    storages = [
        S3Storage("s3://bucket", options),
        S3Storage("s3://bucket", {**options, "requests_per_s": 50}),
        S3Storage("s3://bucket", {**options, "requests_per_s": 200}),
    ]
    start_s = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: read(storages[number % 3], f"{number:03}"), range(60)))
    assert time.monotonic() - start_s > 60 / 50 * 0.8
    assert all(storage.requests_per_s == 50 for storage in storages)
    for storage in storages:
        storage.close()


def test_the_cache_counts_what_the_server_refused(server: FakeS3, open_cache: OpenCache) -> None:
    cache = open_cache()
    cache.attach("d", "s3://bucket", endpoint_url=server.url, max_age=None)
    gate = Gate(100, 503, "SlowDown")
    server.interfere = gate
    views = cache.read_many([f"d/{path}" for path in sorted(server.objects)])
    assert {bytes(view) for view in views} == {b"data"}
    assert cache.status()["counters"]["source_throttled"] == gate.refused > 0
