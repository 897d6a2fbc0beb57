"""webhdfs_open: OPEN of a 256 MiB file, cached and for the first time, beside nginx with the same file.

One client on one connection receives it into the same memory each time. The file comes from a real S3 server
behind 20 ms to the first byte and 200 MB/s; nginx has it on tmpfs, in the page cache.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import forebay
from forebay.testing.proxy_process import ProxyProcess
from perf import workload
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.hdfs.clients import OPEN, connected, get, seconds_to_get
from perf.hdfs.servers import PREFIX, HttpServer, gateway, nginx
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, fresh_cache, served, write_object

KEY = "large.bin"
ROOM_BYTES = 1 << 30
MIB = 1 << 20
CACHED_TIMEOUT_S = 10.0
POLL_S = 0.01


def run(quick: bool) -> Outcome:
    """Receive the file from the gateway, cold and cached, and from nginx in turn."""
    load = workload.load("hdfs", quick)
    size_bytes: int = load["large_bytes"]
    with memory_folder(ROOM_BYTES) as folder:
        write_object(folder / "s3", KEY, size_bytes, load["seed"])
        objects = folder / "s3" / BUCKET
        with (
            served(folder / "s3") as server,
            ProxyProcess(
                server.address, delay_ms=load["delay_ms"], bandwidth=f"{load['bandwidth_mb_s']}MB"
            ) as proxy,
            fresh_cache(folder, load["quota_bytes"], proxy.url) as cache,
            gateway(Path(cache.path)) as ours,
            nginx(objects) as theirs,
        ):
            path = f"{PREFIX}/{DATASET}/{KEY}{OPEN}"
            for each, its_path in ((ours, path), (theirs, f"/{KEY}")):
                with connected(each) as connection:
                    if get(connection, its_path) != (objects / KEY).read_bytes():
                        raise RuntimeError(f"{its_path}: other bytes came than were asked for")
            contenders = [
                Contender("gateway, cached", partial(_cached_rate, cache, ours, path, size_bytes)),
                Contender("gateway, first OPEN", partial(_first_rate, cache, ours, path, size_bytes)),
                Contender("nginx", partial(_rate, theirs, f"/{KEY}", size_bytes)),
            ]
            samples = interleave(contenders, load["large_rounds"])
    bars = [
        compare(
            "WebHDFS OPEN of 256 MiB, cached / the first, 20 ms and 200 MB/s",
            samples,
            "gateway, cached",
            "gateway, first OPEN",
            5.0,
        ),
        compare("WebHDFS OPEN of 256 MiB, cached / nginx", samples, "gateway, cached", "nginx", None),
    ]
    return Outcome("MiB/s", samples, bars, load)


CASE = Case(
    "webhdfs_open",
    "OPEN of a file of 256 MiB by WebHDFS, one connection",
    "the kernel's two copies between processes; for the first the proxy's bandwidth",
    run,
)


def _rate(server: HttpServer, path: str, size_bytes: int) -> float:
    return size_bytes / MIB / seconds_to_get(server, path, size_bytes)


def _cached_rate(cache: forebay.Cache, server: HttpServer, path: str, size_bytes: int) -> float:
    _wait_until_cached(cache, size_bytes)
    return _rate(server, path, size_bytes)


def _first_rate(cache: forebay.Cache, server: HttpServer, path: str, size_bytes: int) -> float:
    _wait_until_cached(cache, size_bytes)
    cache.free(f"{DATASET}/{KEY}")
    if left := cache.usage(f"{DATASET}/{KEY}").cached_bytes:
        raise RuntimeError(f"{left} bytes are cached still")
    return _rate(server, path, size_bytes)


def _wait_until_cached(cache: forebay.Cache, size_bytes: int) -> None:
    """Wait until all of the file is in its place, which may be a moment after it was read.

    Raises: RuntimeError.
    """
    give_up_s = time.monotonic() + CACHED_TIMEOUT_S
    while (cached := cache.usage(f"{DATASET}/{KEY}").cached_bytes) != size_bytes:
        if time.monotonic() > give_up_s:
            raise RuntimeError(f"{cached} bytes are cached of {size_bytes}")
        time.sleep(POLL_S)
