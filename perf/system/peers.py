"""What fetches without a cache: boto3 and obstore, alone, writing what comes into a file on the same tier.

The file is new and written with pwrite, which is what a tier's segment costs as well. Nothing of forebay is
imported here, so that a process with these alone can be compared with one that has forebay besides.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.config import Config
from obstore.store import S3Store

from perf import memory

PART_BYTES = 8 << 20
STEP_BYTES = 1 << 20
CONNECTIONS = 64


class Peer(Protocol):
    """Lists the bucket and gets small objects; from any thread."""

    def keys(self) -> Iterator[str]: ...

    def get(self, key: str) -> memoryview: ...


class Obstore:
    """A bucket by obstore."""

    def __init__(self, endpoint_url: str, bucket: str) -> None:
        self.store = S3Store(
            bucket,
            endpoint=endpoint_url,
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def keys(self) -> Iterator[str]:
        for page in self.store.list():
            for item in page:
                yield item["path"]

    def get(self, key: str) -> memoryview:
        return memoryview(self.store.get(key).bytes())

    def fetch_one(self, key: str, size_bytes: int, path: Path) -> float:
        """Write one large object to a new file, from one stream; returns the seconds it took.

        Not in ranges: rclone answers them with status 200, which obstore refuses.
        """
        with _timed_file(path, size_bytes) as (file, seconds):
            offset = 0
            for piece in self.store.get(key).stream(min_chunk_size=STEP_BYTES):
                offset += os.pwrite(file, piece, offset)
        return seconds()


class Boto3:
    """A bucket by boto3."""

    def __init__(self, endpoint_url: str, bucket: str) -> None:
        self._bucket = bucket
        config = Config(max_pool_connections=CONNECTIONS, s3={"addressing_style": "path"})
        self._client: Any = boto3.client("s3", endpoint_url=endpoint_url, config=config)

    def keys(self) -> Iterator[str]:
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket):
            for item in page.get("Contents", ()):
                yield item["Key"]

    def get(self, key: str) -> memoryview:
        return memoryview(self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read())

    def get_first(self, key: str, length_bytes: int) -> memoryview:
        """Get the first bytes of an object by a ranged GET."""
        span = f"bytes=0-{length_bytes - 1}"
        return memoryview(self._client.get_object(Bucket=self._bucket, Key=key, Range=span)["Body"].read())

    def fetch_one(self, key: str, size_bytes: int, path: Path, threads: int) -> float:
        """Write one large object to a new file, in ranges side by side; returns the seconds it took."""

        def fetch(offset: int) -> None:
            last = min(offset + PART_BYTES, size_bytes) - 1
            answer = self._client.get_object(Bucket=self._bucket, Key=key, Range=f"bytes={offset}-{last}")
            buffer = memoryview(bytearray(STEP_BYTES))
            with answer["Body"] as body:
                while count := body.readinto(buffer):
                    offset += os.pwrite(file, buffer[:count], offset)

        with _timed_file(path, size_bytes) as (file, seconds), ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(fetch, range(0, size_bytes, PART_BYTES)):
                pass
        return seconds()


def fetch_all(peer: Peer, threads: int, path: Path, size_bytes: int) -> float:
    """List the bucket and write all objects, one behind the other, to a new file; returns the seconds."""
    lock = threading.Lock()
    end = 0

    def fetch(key: str) -> None:
        nonlocal end
        data = peer.get(key)
        with lock:
            offset, end = end, end + len(data)
        os.pwrite(file, data, offset)

    with _timed_file(path, size_bytes) as (file, seconds), ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fetch, peer.keys()):
            pass
    return seconds()


def private_bytes_alone(endpoint_url: str, bucket: str, key: str) -> int:
    """Fetch an object by both clients; returns the private memory of this process."""
    clients = (Boto3(endpoint_url, bucket), Obstore(endpoint_url, bucket))
    lengths = {len(client.get(key)) for client in clients}
    if len(lengths) != 1:
        raise RuntimeError(f"{key}: boto3 and obstore returned lengths {lengths}")
    memory.give_back_free_heap()
    return memory.private_bytes()


@contextmanager
def _timed_file(path: Path, size_bytes: int) -> Iterator[tuple[int, Callable[[], float]]]:
    """Give a new file and what tells the seconds until it was complete; removes it afterwards.

    Raises: RuntimeError (it has another size in the end).
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    started = time.perf_counter()
    taken = 0.0
    try:
        yield file, lambda: taken
        taken = time.perf_counter() - started
        written = os.fstat(file).st_size
        if written != size_bytes:
            raise RuntimeError(f"{written} bytes came of {size_bytes}")
    finally:
        os.close(file)
        path.unlink()
