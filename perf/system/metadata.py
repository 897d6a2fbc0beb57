"""metadata_1m: `Cache.load(metadata_only=True)` of 1 M keys, and what they take afterwards.

The server is a double (keys.py) with 100 ms to each page of 1,000 keys. The rival lists the same bucket with
as many requests at a time, keeps nothing, and knows beforehand what forebay has to find out, how the keys
are spread over folders: obstore, whose listing is parsed outside the interpreter. Each runs in a fresh
process.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import forebay
from perf import memory, stores, workload
from perf.fresh import in_fresh_process
from perf.harness import Case, Contender, Facts, Outcome, compare, interleave, within_limit
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, fresh_cache
from perf.system.keys import key_of, listing_server

ROOM_BYTES = 2 << 30
ENTRY_LIMIT_BYTES = 200
PRIVATE_LIMIT_BYTES = 200 << 20


def run(quick: bool) -> Outcome:
    """List all keys with forebay and bare, in turn."""
    load = workload.load("metadata", quick)
    loads: list[Facts] = []
    with (
        memory_folder(ROOM_BYTES) as folder,
        listing_server(load["key_count"], load["keys_a_folder"], load["page_delay_ms"]) as url,
    ):

        def warm_up() -> float:
            loads.append(in_fresh_process(_warm_up, folder, url, load))
            return float(loads[-1]["keys_per_s"])

        contenders = [
            Contender("forebay", warm_up),
            Contender("bare listing", lambda: in_fresh_process(_list, url, load)),
        ]
        samples = interleave(contenders, load["rounds"], warm_ups=0)
    bars = [
        compare("metadata of 1 M keys / bare parallel listing", samples, "forebay", "bare listing", 0.8),
        within_limit(
            f"bytes an entry / {ENTRY_LIMIT_BYTES}",
            [each["bytes_an_entry"] for each in loads],
            ENTRY_LIMIT_BYTES,
        ),
        within_limit(
            "private bytes while listing / 200 MiB",
            [each["private_bytes"] for each in loads],
            PRIVATE_LIMIT_BYTES,
        ),
    ]
    facts = {"cpu_us_a_key": min(each["cpu_us_a_key"] for each in loads)}
    return Outcome("keys/s", samples, bars, load, facts)


CASE = Case(
    "metadata",
    "listing 1 M keys into the metadata",
    "the server's pages, so many at a time",
    run,
)


def _warm_up(folder: Path, endpoint_url: str, load: dict[str, Any]) -> Facts:
    """Load into a cache of its own; returns what that took."""
    memory.give_back_free_heap()
    before = memory.private_bytes()
    with fresh_cache(folder, load["quota_bytes"], endpoint_url) as cache, memory.watching_peak() as peak:
        cpu, started = time.process_time(), time.perf_counter()
        result = cache.load(DATASET, metadata_only=True).wait()
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        if not result.ok or result.progress.files_done != load["key_count"]:
            raise RuntimeError(f"the load ended {result.state}: {result.reason}; {result.progress}")
        _check(cache, load)
        entry_bytes = stores.entries_file_bytes(Path(cache.path)) / load["key_count"]
    return {
        "keys_per_s": load["key_count"] / seconds,
        "cpu_us_a_key": cpu * 1e6 / load["key_count"],
        "bytes_an_entry": entry_bytes,
        "private_bytes": peak[0] - before,
    }


def _check(cache: forebay.Cache, load: dict[str, Any]) -> None:
    """Look whether the keys are known, without the server. Raises: RuntimeError."""
    names = cache.listdir(f"{DATASET}/{key_of(0, load['keys_a_folder']).partition('/')[0]}")
    if len(names) != load["keys_a_folder"]:
        raise RuntimeError(f"{len(names)} names are known in a folder of {load['keys_a_folder']}")


def _list(endpoint_url: str, load: dict[str, Any]) -> float:
    """List every folder by obstore; returns keys per second."""
    from perf.system.peers import Obstore

    store = Obstore(endpoint_url, BUCKET).store
    folders = [
        key_of(first, load["keys_a_folder"]).partition("/")[0]
        for first in range(0, load["key_count"], load["keys_a_folder"])
    ]

    def count(name: str) -> int:
        return sum(len(page) for page in store.list(f"{name}/", chunk_size=1_000))

    started = time.perf_counter()
    with ThreadPoolExecutor(load["list_workers"]) as pool:
        found = sum(pool.map(count, folders))
    seconds = time.perf_counter() - started
    if found != load["key_count"]:
        raise RuntimeError(f"the bare listing found {found} keys of {load['key_count']}")
    return found / seconds
