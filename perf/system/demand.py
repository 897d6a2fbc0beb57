"""demand_p99: reads that miss, with and without a load of other objects at work in another process.

Both go through one proxy (20 ms to the first byte, 200 MB/s in all) to a real S3 server. The reader reads one
object after another, each of which is missed; before each round its objects are freed. The load begins anew
whenever it is through.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection

import forebay
from forebay.testing.proxy_process import ProxyProcess
from perf import workload
from perf.errand import END, errand, tell
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, check_same, fresh_cache, served, write_objects

ROOM_BYTES = 4 << 30
BEGIN_TIMEOUT_S = 60.0
PERCENTILE = 99
BEGUN_BYTES = 16 << 20


def run(quick: bool) -> Outcome:
    """Read in alternating rounds, quiet and beside the load."""
    load = workload.load("demand", quick)
    with memory_folder(ROOM_BYTES) as folder:
        keys = write_objects(
            folder / "s3", load["demand_count"], load["object_bytes"], load["seed"], "demand/"
        )
        write_objects(folder / "s3", load["load_count"], load["object_bytes"], load["seed"] + 1, "load/")
        with (
            served(folder / "s3") as server,
            ProxyProcess(
                server.address, delay_ms=load["delay_ms"], bandwidth=f"{load['bandwidth_mb_s']}MB"
            ) as proxy,
            fresh_cache(folder, load["quota_bytes"], proxy.url) as cache,
            errand(_load_when_told, cache.path, first="rest") as loader,
        ):
            reader = _Reader(cache, keys)
            contenders = [
                Contender("quiet", reader.slow_end),
                Contender("beside a load", partial(_beside_load, loader, cache, reader)),
            ]
            samples = interleave(contenders, load["rounds"])
            for key in keys[::50]:
                check_same(cache.read(f"{DATASET}/{key}"), folder / "s3" / BUCKET / key)
    bars = [
        compare("p99 of misses, beside a load / quiet", samples, "beside a load", "quiet", 1.5, "at most")
    ]
    facts = {"loaded_mib_beside_the_reader": reader.loaded_bytes / (1 << 20)}
    return Outcome("s, p99 of misses", samples, bars, load, facts)


CASE = Case(
    "demand",
    "missing reads of 100 KiB beside a running load of another process",
    "one request to the server; what the load has in flight when a read begins",
    run,
)


class _Reader:
    """Reads all its objects, each missed, and knows the slow end of them."""

    def __init__(self, cache: forebay.Cache, keys: list[str]) -> None:
        self._cache = cache
        self._paths = [f"{DATASET}/{key}" for key in keys]
        self.loaded_bytes = 0

    def slow_end(self) -> float:
        """Run a round; returns the 99th percentile, in seconds."""
        cache, taken = self._cache, []
        for path in self._paths:
            started = time.perf_counter()
            cache.read(path).release()
            taken.append(time.perf_counter() - started)
        cache.free(f"{DATASET}/demand")
        return statistics.quantiles(taken, n=100)[PERCENTILE - 1]


def _beside_load(loader: Connection, cache: forebay.Cache, reader: _Reader) -> float:
    """Measure while the other process loads: it has fetched something before, and goes on until after.

    Raises: RuntimeError (the load fetched nothing meanwhile).
    """
    began = _loaded_bytes(cache)
    tell(loader, "load")
    _wait_until(lambda: _loaded_bytes(cache) > began + BEGUN_BYTES)
    before = _loaded_bytes(cache)
    figure = reader.slow_end()
    loaded = _loaded_bytes(cache) - before
    tell(loader, "rest")
    if not loaded:
        raise RuntimeError(
            "the load fetched nothing beside the reader: the rounds do not show what they are for"
        )
    reader.loaded_bytes += loaded
    return figure


def _loaded_bytes(cache: forebay.Cache) -> int:
    return int(cache.status()["counters"]["load_bytes"])


def _wait_until(met: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + BEGIN_TIMEOUT_S
    while not met():
        if time.monotonic() > deadline_s:
            raise TimeoutError("the load did not begin in time")
        time.sleep(0.01)


def _load_when_told(cache_dir: str, pipe: Connection) -> None:
    """Load between `load` and `rest`, freeing what was loaded whenever all of it was."""
    with forebay.open(cache_dir) as cache:
        job: forebay.LoadJob | None = None
        while (order := _next_order(pipe, job)) != END:
            if order is None or order == "load":
                cache.free(f"{DATASET}/load")
                job = cache.load(f"{DATASET}/load")
            elif job is not None:
                job.cancel()
                job.wait()
                job = None
            if order is not None:
                pipe.send(order)


def _next_order(pipe: Connection, job: forebay.LoadJob | None) -> str | None:
    """Wait for an order; None: the load is through, and nothing was ordered."""
    while not pipe.poll(0.05):
        if job is not None and job.result().state != "running":
            return None
    order: str = pipe.recv()
    return order
