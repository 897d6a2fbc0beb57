"""cold_load: 2,000 objects of 100 KiB from a real S3 server into an empty MEM tier, by `Cache.load`.

Its rivals list the same bucket and write the same bytes to one file on the same file system: obstore from
the number of threads at which it is fastest here (tried before the rounds), and boto3 from a pool.
"""

from __future__ import annotations

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

from perf import workload
from perf.harness import Case, Contender, Outcome, collector_off, compare, interleave
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, check_same, fresh_cache, served, write_objects
from perf.system.peers import Boto3, Obstore, Peer, fetch_all

ROOM_BYTES = 2 << 30


def run(quick: bool) -> Outcome:
    """Load all objects with forebay, obstore and boto3 in turn."""
    load = workload.load("cold_load", quick)
    with memory_folder(ROOM_BYTES) as folder:
        keys = write_objects(folder / "s3", load["object_count"], load["object_bytes"], load["seed"])
        with served(folder / "s3") as server:
            obstore, boto = Obstore(server.endpoint_url, BUCKET), Boto3(server.endpoint_url, BUCKET)
            speeds = {
                threads: _speed(partial(_peer_rate, obstore, threads, folder, load), load)
                for threads in load["obstore_threads"]
            }
            best = max(speeds, key=lambda threads: speeds[threads])
            contenders = [
                Contender("forebay", partial(_load_rate, folder, server.endpoint_url, keys, load)),
                Contender("obstore", partial(_peer_rate, obstore, best, folder, load)),
                Contender("boto3", partial(_peer_rate, boto, load["boto3_threads"], folder, load)),
            ]
            samples = interleave(contenders, load["rounds"])
    bars = [
        compare("cold load of 100 KiB objects / obstore", samples, "forebay", "obstore", 0.8),
        compare("cold load of 100 KiB objects / boto3", samples, "forebay", "boto3", 2.5),
    ]
    facts = {f"obstore_{threads}_threads": speed for threads, speed in speeds.items()}
    return Outcome("objects/s", samples, bars, load, facts | {"obstore_threads_chosen": best})


CASE = Case(
    "cold_load",
    "load of 2,000 objects of 100 KiB into an empty MEM tier from a local S3 server",
    "the server's and the client's processor time for a request",
    run,
)


def _speed(measure: partial[float], load: dict[str, Any]) -> float:
    measure()  # the server hashes what it serves for the first time
    return statistics.median(measure() for _ in range(load["calibration_rounds"]))


def _peer_rate(peer: Peer, threads: int, folder: Path, load: dict[str, Any]) -> float:
    count: int = load["object_count"]
    with collector_off():
        return count / fetch_all(peer, threads, folder / "peer", count * load["object_bytes"])


def _load_rate(folder: Path, endpoint_url: str, keys: list[str], load: dict[str, Any]) -> float:
    """Load into a cache of its own; the time is that from submitting the job to its end."""
    with fresh_cache(folder, load["quota_bytes"], endpoint_url) as cache:
        started = time.perf_counter()
        result = cache.load(DATASET).wait()
        seconds = time.perf_counter() - started
        progress = result.progress
        if not result.ok or progress.files_done != len(keys):
            raise RuntimeError(f"the load ended {result.state}: {result.reason}; {progress}")
        for key in keys[:: max(1, len(keys) // load["checked_objects"])]:
            check_same(cache.read(f"{DATASET}/{key}"), folder / "s3" / BUCKET / key)
    return len(keys) / seconds
