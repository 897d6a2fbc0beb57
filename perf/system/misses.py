"""misses: 16 processes read the same 200 objects, none of them cached, in one order and at one moment.

Single flight holds for the host, so the server is to see 200 GETs; a proxy in front of it counts them, and
5 ms to the first byte make the misses overlap. Before each round the objects are freed, in every other one
with what is known of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import forebay
from forebay.testing.proxy_process import ProxyProcess
from perf import workload
from perf.crew import Crew
from perf.harness import Case, Contender, Outcome, interleave, within_limit
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, check_same, fresh_cache, served, write_objects

ROOM_BYTES = 1 << 30


def run(quick: bool) -> Outcome:
    """Let all processes miss the objects, round after round, and count what reaches the server."""
    load = workload.load("misses", quick)
    count: int = load["object_count"]
    with memory_folder(ROOM_BYTES) as folder:
        keys = write_objects(folder / "s3", count, load["object_bytes"], load["seed"])
        with (
            served(folder / "s3") as server,
            ProxyProcess(server.address, delay_ms=load["delay_ms"]) as proxy,
            fresh_cache(folder, load["quota_bytes"], proxy.url) as cache,
            Crew(_reader, [(cache.path, keys)] * load["processes"]) as crew,
        ):
            contenders = [
                Contender("known objects", partial(_gets, cache, crew, proxy, metadata=False)),
                Contender("unknown objects", partial(_gets, cache, crew, proxy, metadata=True)),
            ]
            samples = interleave(contenders, load["rounds"])
            for key in keys[::10]:
                check_same(cache.read(f"{DATASET}/{key}"), folder / "s3" / BUCKET / key)
    bars = [
        within_limit(f"GETs of {load['processes']} processes, {count} {name} / {count}", figures, count)
        for name, figures in samples.items()
    ]
    return Outcome("GETs", samples, bars, load)


CASE = Case(
    "misses",
    "GETs that a server sees when 16 processes miss the same 200 objects",
    "one GET a block",
    run,
)


def _gets(cache: forebay.Cache, crew: Crew, proxy: ProxyProcess, *, metadata: bool) -> float:
    cache.free(DATASET, metadata=metadata)
    proxy.stats(reset=True)
    crew.run()
    gets = proxy.stats()["requests_by_method"].get("GET", 0)
    return float(gets)


def _reader(cache_dir: str, keys: list[str]) -> Callable[[], int]:
    cache = forebay.open(cache_dir)

    def read_all() -> int:
        for key in keys:
            cache.read(f"{DATASET}/{key}").release()
        return len(keys)

    return read_all
