"""memory_1m: private memory of a process with a cache of 1 M blocks and 1 M entries.

It describes and reads very many of them, and fetches one object from a real S3 server. What a process takes
that only makes clients of boto3 and obstore and fetches that object with each is subtracted. Shared maps and
page tables are counted apart.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import forebay
from perf import memory, workload
from perf.fresh import in_fresh_process
from perf.harness import Case, Facts, Outcome, within_limit
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, served, write_objects
from perf.system.keys import key_of
from perf.system.known import BLOCK, MANY, open_known, put_all
from perf.system.peers import private_bytes_alone

ROOM_BYTES = 4 << 30
PRIVATE_LIMIT_BYTES = 20 << 20
FETCHED_BYTES = 102_400


def run(quick: bool) -> Outcome:
    """Fill a cache, then use it in fresh processes, and boto3 and obstore by themselves in others."""
    load = workload.load("metadata", quick)
    with memory_folder(ROOM_BYTES) as folder:
        (key,) = write_objects(folder / "s3", 1, FETCHED_BYTES, load["seed"])
        with served(folder / "s3") as server:
            in_fresh_process(_fill, folder / "cache", server.endpoint_url, load)
            rounds = range(load["memory_rounds"])
            alone = [in_fresh_process(private_bytes_alone, server.endpoint_url, BUCKET, key) for _ in rounds]
            users = [in_fresh_process(_use, folder / "cache", key, load) for _ in rounds]
    samples = {
        "forebay": [float(user["private_bytes"]) for user in users],
        "boto3 and obstore": [float(figure) for figure in alone],
    }
    over = [user - figure for user, figure in zip(*samples.values(), strict=True)]
    bars = [within_limit("private bytes over boto3 and obstore / 20 MiB", over, PRIVATE_LIMIT_BYTES)]
    facts = {"page_table_bytes": max(user["page_table_bytes"] for user in users)}
    return Outcome("bytes", samples, bars, load, facts)


CASE = Case(
    "memory",
    "private memory of a process with a cache of 1 M blocks and 1 M entries",
    "the look-ups that it keeps, clients and their connections",
    run,
)


def _fill(cache_dir: Path, endpoint_url: str, load: dict[str, Any]) -> None:
    """Make a cache that knows all objects and holds the block of each."""
    tiers = [forebay.Tier(str(cache_dir / "tier"), load["quota_bytes"], "MEM")]
    with open_known(cache_dir, load, tiers) as cache:
        cache.attach(DATASET, f"s3://{BUCKET}", endpoint_url=endpoint_url, max_age=None)
        put_all(cache, load)


def _use(cache_dir: Path, key: str, load: dict[str, Any]) -> Facts:
    """Open the cache, use very many of its objects and fetch one; returns the memory that it takes."""
    source = random.Random(load["seed"])
    with open_known(cache_dir, load) as cache:
        for _ in range(load["touched_keys"]):
            path = f"{MANY}/{key_of(source.randrange(load['key_count']), load['keys_a_folder'])}"
            if cache.stat(path).size != len(BLOCK):
                raise RuntimeError(f"{path}: the cache knows another size")
            cache.read(path).release()
        cache.free(f"{DATASET}/{key}")
        cache.read(f"{DATASET}/{key}").release()
        memory.give_back_free_heap()
        return {"private_bytes": memory.private_bytes(), "page_table_bytes": memory.page_table_bytes()}
