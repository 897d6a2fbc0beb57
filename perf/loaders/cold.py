"""torch_cold: an epoch that nobody has cached, its order told, behind 20 ms and 200 MB/s.

It reads through a proxy from a real S3 server. The store's bandwidth is what obstore gets of the same objects
from 64 threads in the same round. s3torchconnector's map dataset reads them as a DataLoader asks for them.
Workers persist, so that none is started and none connects while the clock runs.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from s3torchconnector import S3ClientConfig, S3MapDataset
from torch.utils.data import DataLoader

import forebay
from forebay.api.torch import MapDataset, loader
from forebay.testing.proxy_process import ProxyProcess
from perf import workload
from perf.harness import Case, Contender, Outcome, Samples, compare, interleave
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, check_same, fresh_cache, served, write_objects
from perf.system.peers import Obstore

ROOM_BYTES = 2 << 30
MB = 1_000_000
STORE_THREADS = 64
CHECKED_EVERY = 50
OURS, ALONE, STORE, CONNECTOR = "forebay", "forebay, no workers", "obstore, 64 threads", "s3torchconnector"


def run(quick: bool) -> Outcome:
    """Read the objects by each reader in turn."""
    load = workload.load("torch", quick)
    with memory_folder(ROOM_BYTES) as folder:
        keys = write_objects(folder / "s3", load["cold_count"], load["cold_bytes"], load["seed"])
        with (
            served(folder / "s3") as server,
            ProxyProcess(
                server.address, delay_ms=load["delay_ms"], bandwidth=f"{load['bandwidth_mb_s']}MB"
            ) as proxy,
            fresh_cache(folder, load["quota_bytes"], proxy.url) as cache,
        ):
            cache.load(DATASET, metadata_only=True, wait=True)
            contenders = [
                Contender(OURS, partial(_ours, cache, _reading(cache, load["workers"], load), load)),
                Contender(ALONE, partial(_ours, cache, _reading(cache, 0, load), load)),
                Contender(STORE, partial(_store, Obstore(proxy.url, BUCKET), keys, load)),
                Contender(
                    CONNECTOR, partial(_rate, _connector(proxy.url, load), load["cold_slow_count"], load)
                ),
            ]
            samples: Samples = interleave(contenders, load["cold_rounds"])
            for key in keys[::CHECKED_EVERY]:
                check_same(cache.read(f"{DATASET}/{key}"), folder / "s3" / BUCKET / key)
    title = "cold epoch, order told, 256 KiB, 20 ms and 200 MB/s"
    bars = [
        compare(f"{title} / the store's bandwidth", samples, OURS, STORE, 0.9),
        compare(f"{title} / s3torchconnector", samples, OURS, CONNECTOR, 3.0),
        compare("the same without workers / the store's bandwidth", samples, ALONE, STORE, None),
    ]
    return Outcome("MB/s", samples, bars, load)


CASE = Case(
    "torch_cold",
    "a cold epoch through a DataLoader whose order is told, behind 20 ms and 200 MB/s",
    "the proxy's bandwidth; the processor time of server, proxy, workers and a DataLoader's transport",
    run,
)


def _reading(cache: forebay.Cache, workers: int, load: dict[str, Any]) -> DataLoader[Any]:
    """Make a loader whose workers live as long as it does."""
    dataset = MapDataset.from_prefix(cache, DATASET)
    return loader(
        dataset,
        batch_size=load["batch_size"],
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _ours(cache: forebay.Cache, reading: DataLoader[Any], load: dict[str, Any]) -> float:
    cache.free(DATASET)
    return _rate(reading, load["cold_count"], load)


def _connector(url: str, load: dict[str, Any]) -> DataLoader[Any]:
    """Make a loader of some of the objects, whose workers live as long as it does."""
    dataset = S3MapDataset.from_prefix(
        f"s3://{BUCKET}/",
        region="us-east-1",
        endpoint=url,
        transform=_read,
        s3client_config=S3ClientConfig(force_path_style=True),
    )
    some = random.Random(load["seed"]).sample(range(load["cold_count"]), load["cold_slow_count"])
    # Batches of few, so that both workers have something to do.
    return DataLoader(
        dataset,
        batch_size=5,
        sampler=some,
        num_workers=load["workers"],
        persistent_workers=True,
        collate_fn=list,
    )


def _read(found: Any) -> bytes:
    data: bytes = found.read()
    return data


def _rate(reading: DataLoader[Any], count: int, load: dict[str, Any]) -> float:
    """Take an epoch; returns megabytes per second."""
    started = time.perf_counter()
    taken_bytes = sum(len(sample) for batch in reading for sample in batch)
    seconds = time.perf_counter() - started
    if taken_bytes != count * load["cold_bytes"]:
        raise RuntimeError(f"{taken_bytes} bytes came")
    return taken_bytes / MB / seconds


def _store(store: Obstore, keys: list[str], load: dict[str, Any]) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(STORE_THREADS) as pool:
        taken_bytes = sum(len(data) for data in pool.map(store.get, keys))
    return taken_bytes / MB / (time.perf_counter() - started)
