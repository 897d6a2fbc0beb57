"""remote_hit: a read of 100 KiB that another host has, against a GET of the same object from a distant store.

The client keeps nothing, so that every read goes to a member. The store is the S3 server behind a proxy that
takes 20 ms to the first byte; boto3 asks it over connections that it keeps.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import forebay
from forebay.testing.proxy_process import ProxyProcess
from perf import workload
from perf.group.members import client, members
from perf.harness import Bar, Case, Contender, Outcome, interleave, ratios
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, check_same, served, write_objects
from perf.system.peers import Boto3

ROOM_BYTES = 1 << 30


def run(quick: bool) -> Outcome:
    """Read the same objects, in another order in each round, through the group and from the store."""
    load = workload.load("remote_hit", quick)
    with memory_folder(ROOM_BYTES) as folder:
        keys = write_objects(folder / "s3", load["object_count"], load["object_bytes"], load["seed"])
        with (
            served(folder / "s3") as server,
            ProxyProcess(server.address, delay_ms=load["delay_ms"]) as proxy,
            members(folder, load["member_count"], proxy.url, load["quota_bytes"]) as group,
            client(folder, [each.address for each in group], proxy.url) as cache,
        ):
            for key in keys:
                check_same(cache.read(f"{DATASET}/{key}"), folder / "s3" / BUCKET / key)
            boto, draw = Boto3(proxy.url, BUCKET), random.Random(load["seed"])
            contenders = [
                Contender("through a member", partial(_hit_s, cache, proxy, draw, keys)),
                Contender("boto3", lambda: _median_s(boto.get, draw.sample(keys, load["store_reads"]))),
            ]
            samples = interleave(contenders, load["rounds"])
    bars = [
        Bar(
            "GET with 20 ms to the first byte / remote hit, 100 KiB",
            20,
            ratios(samples["boto3"], samples["through a member"]),
        )
    ]
    return Outcome("s, median of a read", samples, bars, load)


CASE = Case(
    "remote_hit",
    "a read of 100 KiB from a member, and from an S3 server behind 20 ms",
    "a round trip between processes and the copies on the way",
    run,
)


def _hit_s(cache: forebay.Cache, proxy: ProxyProcess, draw: random.Random, keys: list[str]) -> float:
    """Read every object; raises RuntimeError if the store was asked for any."""
    proxy.stats(reset=True)
    taken_s = _median_s(lambda key: cache.read(f"{DATASET}/{key}").release(), draw.sample(keys, len(keys)))
    if asked := proxy.stats()["requests_by_method"]:
        raise RuntimeError(f"reads that members were to answer reached the store: {asked}")
    return taken_s


def _median_s(read: Callable[[str], object], keys: Sequence[str]) -> float:
    taken_s = []
    for key in keys:
        begun_s = time.perf_counter()
        read(key)
        taken_s.append(time.perf_counter() - begun_s)
    return statistics.median(taken_s)
