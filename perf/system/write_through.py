"""write_through: 1,000 objects of 1 MiB to a real S3 server, by `Cache.put` from a pool of threads.

Its rival is boto3's `put_object` from a pool of as many threads, with the client settings that forebay gives
its own: as many threads as boto3 is fastest with here (tried before the rounds). Every round writes under
names of its own, which are removed when the clock has stopped.
"""

from __future__ import annotations

import itertools
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

import forebay
from perf import workload
from perf.harness import Case, Contender, Outcome, collector_off, compare, interleave
from perf.places import memory_folder
from perf.system.bucket import BUCKET, served

ROOM_BYTES = 3 << 30
CONNECTIONS = 64

Put = Callable[[str, bytes], object]


def run(quick: bool) -> Outcome:
    """Write all objects with forebay and boto3 in turn."""
    load = workload.load("write_through", quick)
    names = map("round-{:04}".format, itertools.count())
    with memory_folder(ROOM_BYTES) as folder:
        (folder / "s3" / BUCKET).mkdir(parents=True)
        with served(folder / "s3") as server, _cache(folder, load, server.endpoint_url) as cache:
            boto = partial(_put_by_boto3, _boto3(server.endpoint_url))
            speeds = {
                threads: max(
                    _rate(boto, threads, folder, load, names) for _ in range(load["calibration_rounds"])
                )
                for threads in load["threads"]
            }
            best = max(speeds, key=lambda threads: speeds[threads])
            puts: dict[str, Put] = {
                "forebay": lambda name, data: cache.put(f"through/{name}", data),
                "forebay, cached as well": lambda name, data: cache.put(f"cached/{name}", data),
                "boto3": boto,
            }
            contenders = [
                Contender(name, partial(_rate, put, best, folder, load, names)) for name, put in puts.items()
            ]
            samples = interleave(contenders, load["rounds"])
    bars = [compare("write through of 1 MiB objects / boto3's pool", samples, "forebay", "boto3", 0.85)]
    facts = {f"boto3_{threads}_threads": speed for threads, speed in speeds.items()}
    return Outcome("objects/s", samples, bars, load, facts | {"threads_chosen": best})


CASE = Case(
    "write_through",
    "1,000 objects of 1 MiB written to a local S3 server from a pool of threads",
    "the server's and the client's processor time for a request and its bytes",
    run,
)


@contextmanager
def _cache(folder: Path, load: dict[str, Any], endpoint_url: str) -> Iterator[forebay.Cache]:
    """Give a cache with the bucket attached twice, whose clients are made and connected."""
    tiers = [forebay.Tier(str(folder / "tier"), load["quota_bytes"], "MEM")]
    with forebay.open(folder / "cache", tiers=tiers) as cache:
        for name, mode in (("through", "through"), ("cached", "cache_through")):
            cache.attach(
                name,
                f"s3://{BUCKET}",
                endpoint_url=endpoint_url,
                max_age=None,
                retention="lru",
                writable=True,
                write_mode=mode,
            )
            cache.exists(f"{name}/absent")
        yield cache


def _boto3(endpoint_url: str) -> Any:
    config = Config(
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"},
    )
    return boto3.client("s3", endpoint_url=endpoint_url, config=config)


def _put_by_boto3(client: Any, name: str, data: bytes) -> None:
    client.put_object(Bucket=BUCKET, Key=name, Body=data)


def _rate(put: Put, threads: int, folder: Path, load: dict[str, Any], names: Iterator[str]) -> float:
    """Write all objects, and see that the bucket has them.

    Raises: RuntimeError (a wrong byte).
    """
    name, count = next(names), load["object_count"]
    source = random.Random(load["seed"])
    data = [source.randbytes(load["object_bytes"]) for _ in range(load["different_objects"])]
    keys = [f"{name}/{number:04}" for number in range(count)]
    place = folder / "s3" / BUCKET
    # Made beforehand: many first writes into a new folder at once are too much for this server.
    (place / name).mkdir()
    with ThreadPoolExecutor(threads) as pool, collector_off():
        started = time.perf_counter()
        list(pool.map(put, keys, itertools.islice(itertools.cycle(data), count)))
        seconds = time.perf_counter() - started
    for number in range(0, count, max(1, count // load["checked_objects"])):
        if (place / keys[number]).read_bytes() != data[number % len(data)]:
            raise RuntimeError(f"{keys[number]}: the bucket holds other bytes than were written")
    shutil.rmtree(place / name)
    return float(count / seconds)
