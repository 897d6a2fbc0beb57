"""cold_object: `Cache.read` of one 1 GiB object that is not cached, MEM tier, from a local S3 server.

The time ends with a view of all of it in hand. The rivals write the same bytes to a file on the same file
system: boto3 in ranges of 8 MiB from a pool, obstore in one stream (the server answers ranges with status
200, which obstore refuses); the best of them counts.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

from perf import workload
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, check_same, fresh_cache, served, write_object
from perf.system.peers import Boto3, Obstore

KEY = "large.bin"
ROOM_BYTES = 4 << 30
MIB = 1 << 20


def run(quick: bool) -> Outcome:
    """Read the object with forebay, boto3 and obstore in turn."""
    load = workload.load("cold_object", quick)
    size_bytes: int = load["object_bytes"]
    with memory_folder(ROOM_BYTES) as folder:
        write_object(folder / "s3", KEY, size_bytes, load["seed"])
        with served(folder / "s3") as server:
            url = server.endpoint_url
            boto, obstore, target = Boto3(url, BUCKET), Obstore(url, BUCKET), folder / "peer"
            contenders = [
                Contender("forebay", partial(read_rate, folder, url, load)),
                Contender(
                    "obstore, 1 stream", lambda: mib_s(size_bytes, obstore.fetch_one(KEY, size_bytes, target))
                ),
            ] + [
                Contender(f"boto3, {threads} threads", partial(_boto_rate, boto, size_bytes, target, threads))
                for threads in load["boto3_threads"]
            ]
            samples = interleave(contenders, load["rounds"])
    rivals = {name: statistics.median(figures) for name, figures in samples.items() if name != "forebay"}
    best = max(rivals, key=lambda name: rivals[name])
    bars = [compare("cold read of 1 GiB / best of boto3 and obstore", samples, "forebay", best, 0.85)]
    return Outcome("MiB/s", samples, bars, load, {"best_rival": best})


CASE = Case(
    "cold_object",
    "read of one 1 GiB object into an empty MEM tier from a local S3 server",
    "memory bandwidth: the server's copy, the socket's two, the tier's",
    run,
)


def mib_s(size_bytes: int, seconds: float) -> float:
    """Return a rate."""
    return size_bytes / MIB / seconds


def read_rate(folder: Path, endpoint_url: str, load: dict[str, Any]) -> float:
    """Read the object through a cache of its own; the time is that until its view is in hand."""
    with fresh_cache(folder, load["quota_bytes"], endpoint_url) as cache:
        started = time.perf_counter()
        view = cache.read(f"{DATASET}/{KEY}")
        seconds = time.perf_counter() - started
        with view:
            check_same(view, folder / "s3" / BUCKET / KEY)
        cached = cache.usage(f"{DATASET}/{KEY}").cached_bytes
        if cached != load["object_bytes"]:
            raise RuntimeError(f"{cached} bytes are cached of {load['object_bytes']}")
    return mib_s(load["object_bytes"], seconds)


def _boto_rate(boto: Boto3, size_bytes: int, target: Path, threads: int) -> float:
    return mib_s(size_bytes, boto.fetch_one(KEY, size_bytes, target, threads))
