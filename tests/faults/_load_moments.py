"""kill -9 at random moments of loads, one after another, and everything counted after each."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from tests.faults._child import Child, wait_until

BLOCK: Final = 64 * KIB
# One among them may lie in one piece.
SIZES: Final = {**{f"dir{number % 10}/f{number}": 20 * KIB for number in range(200)}, "large": MIB + 7}
TOTAL: Final = sum(SIZES.values())

OpenCache = Callable[[], Cache]


def opener(tmp_path: Path, memory_path: Path) -> OpenCache:
    """Write the files, and return what opens a cache over them."""
    for name, size in SIZES.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))

    def open_one() -> Cache:
        cache = Cache(tmp_path / "cache", [Tier(str(memory_path), 64 * MIB, "MEM")], block_bytes=BLOCK)
        cache.attach("d", (tmp_path / "data").as_uri(), max_age=None)
        return cache

    return open_one


def run_job(link: Connection, open_cache: OpenCache, job_id: str) -> None:
    """Body: see a load through, having said that the cache is open."""
    with open_cache() as cache:
        link.send("open")
        cache.resume(job_id).wait()


def cached_bytes(cache: Cache) -> int:
    return cache.usage("d").cached_bytes


def load_bytes(cache: Cache) -> int:
    return int(cache.status()["counters"]["load_bytes"])


def kill_at_moments(open_cache: OpenCache, folder: Path, moments: int, seed: int) -> None:
    """Kill a load so often, each begun with nothing cached, and go on with it: no byte is fetched twice."""
    rng = random.Random(seed)
    with open_cache() as cache:
        begun = time.monotonic()
        assert cache.load("d").wait().ok
        moment_s = time.monotonic() - begun
        for _ in range(moments):
            cache.free("d")
            job = cache.load("d", start=False)
            with Child(run_job, open_cache, job.id) as child:
                child.receive()
                time.sleep(rng.uniform(0, moment_s))
                child.kill()
                child.exit_code()
            wait_until(lambda: job.progress().state != "running", "nobody runs it")  # noqa: B023
            there = cached_bytes(cache)
            wait_until(
                lambda: cache.status()["committed_bytes"] == there,  # noqa: B023
                f"{cache.status()['committed_bytes']} bytes are those of {there}",
            )
            assert cache.check().ok
            fetched = load_bytes(cache)
            result = cache.resume(job.id).wait(60)
            assert (result.ok, result.progress.files_settled) == (True, len(SIZES))
            assert load_bytes(cache) - fetched == TOTAL - there
            assert cached_bytes(cache) == cache.status()["committed_bytes"] == TOTAL
            name = rng.choice(sorted(SIZES))
            assert bytes(cache.read(f"d/{name}")) == (folder / name).read_bytes()
