"""prefetch: one reader of objects in a known order, with and without `Cache.prefetch`, nothing cached.

It reads through a proxy (20 ms to the first byte, 200 MB/s in all) from a real S3 server. Before each round
the objects are freed; what is known of them stays. obstore from as many threads as there are requests at a
time shows what of the bandwidth can be had here with objects of that size: server, proxy and client share the
machine's processors, and small objects keep them busy.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import forebay
from forebay.testing.proxy_process import ProxyProcess
from perf import workload
from perf.harness import Bar, Case, Contender, Facts, Outcome, Samples, compare, interleave
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, check_same, fresh_cache, served, write_objects
from perf.system.peers import Obstore

ROOM_BYTES = 2 << 30
MB = 1_000_000
CHECKED_EVERY = 50


def run(quick: bool) -> Outcome:
    """Read objects of every size with prefetch, without, and by obstore, in turn."""
    load = workload.load("prefetch", quick)
    samples: Samples = {}
    bars: list[Bar] = []
    with memory_folder(ROOM_BYTES) as folder:
        keys = {size: _write(folder / "s3", size, load) for size in load["object_bytes"]}
        with (
            served(folder / "s3") as server,
            ProxyProcess(
                server.address, delay_ms=load["delay_ms"], bandwidth=f"{load['bandwidth_mb_s']}MB"
            ) as proxy,
        ):
            for size_bytes in load["object_bytes"]:
                label = f"{size_bytes >> 10} KiB"
                found = _measure(folder, proxy.url, keys[size_bytes], load)
                samples |= {f"{label}, {name}": figures for name, figures in found.items()}
                bars += _bars(label, samples, load)
    return Outcome("MB/s", samples, bars, load, _facts(samples, load))


CASE = Case(
    "prefetch",
    "one reader in a known order, nothing cached, behind 20 ms and 200 MB/s",
    "the proxy's bandwidth; the processor time of server, proxy and client for a request",
    run,
)


def _write(folder: Path, size_bytes: int, load: dict[str, Any]) -> list[str]:
    count = load["data_set_bytes"] // size_bytes
    return write_objects(folder, count, size_bytes, load["seed"], f"{size_bytes}/")


def _measure(folder: Path, url: str, keys: list[str], load: dict[str, Any]) -> Samples:
    paths = [f"{DATASET}/{key}" for key in keys]
    with fresh_cache(folder, load["quota_bytes"], url) as cache:
        cache.load(DATASET, metadata_only=True, wait=True)
        contenders = [
            Contender("prefetch", partial(_read_ahead, cache, paths)),
            Contender("reader alone", partial(_read_alone, cache, paths[: load["read_alone"]])),
            Contender("obstore", partial(_get_all, Obstore(url, BUCKET), keys, load["obstore_threads"])),
        ]
        found = interleave(contenders, load["rounds"])
        for key in keys[::CHECKED_EVERY]:
            check_same(cache.read(f"{DATASET}/{key}"), folder / "s3" / BUCKET / key)
    return found


def _read_ahead(cache: forebay.Cache, paths: list[str]) -> float:
    cache.free(DATASET)
    total_bytes, started = 0, time.perf_counter()
    for expected, (path, view) in zip(paths, cache.prefetch(paths), strict=True):
        if path != expected:
            raise RuntimeError(f"{path} came in the place of {expected}")
        total_bytes += len(view)
        view.release()
    return total_bytes / MB / (time.perf_counter() - started)


def _read_alone(cache: forebay.Cache, paths: list[str]) -> float:
    cache.free(DATASET)
    total_bytes, started = 0, time.perf_counter()
    for path in paths:
        with cache.read(path) as view:
            total_bytes += len(view)
    return total_bytes / MB / (time.perf_counter() - started)


def _get_all(peer: Obstore, keys: list[str], threads: int) -> float:
    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total_bytes = sum(len(data) for data in pool.map(peer.get, keys))
    return total_bytes / MB / (time.perf_counter() - started)


def _bars(label: str, samples: Samples, load: dict[str, Any]) -> list[Bar]:
    ours = f"{label}, prefetch"
    shares = [figure / load["bandwidth_mb_s"] for figure in samples[ours]]
    return [
        compare(f"prefetch of {label} / reader alone", samples, ours, f"{label}, reader alone", 5.0),
        Bar(f"prefetch of {label}, 20 ms and 200 MB/s / bandwidth", 0.9, shares),
    ]


def _facts(samples: Samples, load: dict[str, Any]) -> Facts:
    return {
        f"{name} / bandwidth, best": max(figures) / load["bandwidth_mb_s"]
        for name, figures in samples.items()
        if name.endswith("obstore")
    }
