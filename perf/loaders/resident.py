"""torch_resident: epochs of which a share is resident, the order told, the rest behind 20 ms and 200 MB/s.

Retention `epoch` keeps what came first. What is no hit is a GET that the store sees, in the epochs from the
second on. Between batches the loop is busy with something else for a while, as a training step is. A stall is
the longest that it waits for a batch once the first has come; it is held to the slowest of single GETs that a
client makes of the same store beforehand, with nothing beside it.

Two loops take turns, epoch by epoch. Server and proxy take three quarters of the time that the workers do,
on the same two processors: the quicker loop keeps those at work for three quarters of its time, and wholly
while an epoch begins, so that what it waits for is a processor as well as the store. It is reported.
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
            steps_s = load["steps_s"]
            _epoch(reading, load["resident_count"], steps_s[0])
            share = cache.usage(DATASET).cached_bytes / data_bytes
            differences: list[float] = []
            stalls: dict[float, list[float]] = {step_s: [] for step_s in steps_s}
            for _ in range(load["resident_epochs"] - 1):
                for step_s in steps_s:
                    before = _gets(proxy)
                    stalls[step_s].append(_epoch(reading, load["resident_count"], step_s))
                    hit_ratio = 1 - (_gets(proxy) - before) / load["resident_count"]
                    differences.append(abs(hit_ratio - share) / TOLERANCE)
    bars = [Bar(f"epoch, 60 % resident: |hit ratio - share| / {TOLERANCE}", 1.0, differences, "at most")]
    for step_s, target in zip(steps_s, (1.0, None), strict=True):
        ratios = [stall / max(store_reads) for stall in stalls[step_s]]
        title = f"the same, {step_s * 1e3:.0f} ms a step: longest wait for a batch / a store read"
        bars.append(Bar(title, target, ratios, "at most"))
    samples = {f"longest wait, {step_s * 1e3:.0f} ms a step": found for step_s, found in stalls.items()}
    samples["store reads"] = sorted(store_reads)[-load["resident_epochs"] :]
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


def _epoch(reading: Any, count: int, step_s: float) -> float:
    """Take an epoch of so many samples; returns the longest wait for a batch behind the first."""
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
        time.sleep(step_s)
    if taken != count:
        raise RuntimeError(f"{taken} samples came of {count}")
    return longest


def _gets(proxy: ProxyProcess) -> int:
    """Return how many GETs have been made of the store so far."""
    count: int = proxy.stats()["requests_by_method"]["GET"]
    return count
