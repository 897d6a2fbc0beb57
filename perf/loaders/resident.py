"""torch_resident: epochs of which a share is resident, the order told, the rest behind 20 ms and 200 MB/s.

Retention `epoch` keeps what came first. What is no hit is a GET that the store sees, in the epochs from the
second on. Between batches the loop is busy with something else for a while, as a training step is. A stall is
the longest that it waits for a batch once the first has come; it is held to the slowest of single GETs that a
client makes of the same store beforehand, with nothing beside it.
"""

from __future__ import annotations

import time
from typing import Any

from forebay.api.torch import MapDataset, loader
from forebay.testing.proxy_process import ProxyProcess
from perf import workload
from perf.harness import Bar, Case, Outcome
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, fresh_cache, served, write_objects
from perf.system.peers import Boto3

ROOM_BYTES = 2 << 30
TOLERANCE = 0.01


def run(quick: bool) -> Outcome:
    """Read epochs, the first of which fills the tier."""
    load = workload.load("torch", quick)
    data_bytes = load["resident_count"] * load["resident_bytes"]
    quota = int(load["resident_share"] * data_bytes)
    with memory_folder(ROOM_BYTES) as folder:
        keys = write_objects(folder / "s3", load["resident_count"], load["resident_bytes"], load["seed"])
        with (
            served(folder / "s3") as server,
            ProxyProcess(
                server.address, delay_ms=load["delay_ms"], bandwidth=f"{load['bandwidth_mb_s']}MB"
            ) as proxy,
            fresh_cache(folder, quota, proxy.url) as cache,
        ):
            store_reads = _store_reads(Boto3(proxy.url, BUCKET), keys[: load["store_reads"]])
            dataset = MapDataset.from_prefix(cache, DATASET)
            reading = loader(
                dataset,
                batch_size=load["batch_size"],
                shuffle=True,
                num_workers=load["workers"],
                persistent_workers=True,
            )
            _epoch(reading, load)
            share = cache.usage(DATASET).cached_bytes / data_bytes
            differences, stalls = [], []
            for _ in range(load["resident_epochs"] - 1):
                before = _gets(proxy)
                stalls.append(_epoch(reading, load))
                hit_ratio = 1 - (_gets(proxy) - before) / load["resident_count"]
                differences.append(abs(hit_ratio - share) / TOLERANCE)
    bars = [
        Bar(f"epoch, 60 % resident: |hit ratio - share| / {TOLERANCE}", 1.0, differences, "at most"),
        Bar(
            "the same: longest wait for a batch / a store read",
            1.0,
            [stall / max(store_reads) for stall in stalls],
            "at most",
        ),
    ]
    samples = {"longest wait for a batch": stalls, "store reads": sorted(store_reads)[-len(stalls) :]}
    return Outcome("s", samples, bars, load, {"resident share": share})


CASE = Case(
    "torch_resident",
    "epochs through a DataLoader whose order is told, 60 % of the data resident",
    "the resident share; a store read",
    run,
)


def _store_reads(store: Boto3, keys: list[str]) -> list[float]:
    """Get objects one at a time; returns the seconds of each."""
    store.get(keys[0])
    taken = []
    for key in keys:
        started = time.perf_counter()
        store.get(key)
        taken.append(time.perf_counter() - started)
    return taken


def _epoch(reading: Any, load: dict[str, Any]) -> float:
    """Take an epoch; returns the longest wait for a batch behind the first."""
    batches = iter(reading)
    taken = len(next(batches))
    longest = 0.0
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            break
        longest = max(longest, time.perf_counter() - started)
        taken += len(batch)
        time.sleep(load["step_s"])
    if taken != load["resident_count"]:
        raise RuntimeError(f"{taken} samples came of {load['resident_count']}")
    return longest


def _gets(proxy: ProxyProcess) -> int:
    """Return how many GETs have been made of the store so far."""
    count: int = proxy.stats()["requests_by_method"]["GET"]
    return count
