"""group_cold: 8 client processes read the same cold objects through 4 members, each in an order of its own.

A proxy in front of the S3 server counts the GETs and takes 5 ms to the first byte, so that reads of the same
object overlap. Every round has objects of its own, which nobody has heard of before.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forebay.testing.proxy_process import ProxyProcess
from perf import workload
from perf.crew import Crew
from perf.group.members import client, members
from perf.harness import Bar, Case, Outcome, within_limit
from perf.places import memory_folder
from perf.system.bucket import BUCKET, DATASET, served, write_objects

ROOM_BYTES = 2 << 30


def run(quick: bool) -> Outcome:
    """Let all clients read a round's objects, and count what reaches the server."""
    load = workload.load("group_cold", quick)
    count: int = load["object_count"]
    gets, all_requests = [], []
    with memory_folder(ROOM_BYTES) as folder:
        for number in range(load["rounds"]):
            write_objects(folder / "s3", count, load["object_bytes"], load["seed"] + number, f"{number}/")
        with (
            served(folder / "s3") as server,
            ProxyProcess(server.address, delay_ms=load["delay_ms"]) as proxy,
            members(folder, load["member_count"], proxy.url, load["quota_bytes"]) as group,
        ):
            addresses = [each.address for each in group]
            arguments = [(folder, addresses, proxy.url, load, seed) for seed in range(load["clients"])]
            with Crew(_reader, arguments) as crew:
                proxy.stats(reset=True)
                for _ in range(load["rounds"]):
                    crew.run()
                    by_method = proxy.stats(reset=True)["requests_by_method"]
                    gets.append(float(by_method.get("GET", 0)))
                    all_requests.append(float(sum(by_method.values())))
    if min(gets) < count:
        raise RuntimeError(f"{min(gets):.0f} GETs for {count} objects: they were not cold")
    samples = {"GETs": gets, "all requests": all_requests}
    bars = [
        within_limit(
            f"{load['clients']} clients, {load['member_count']} members, cold: GETs / objects", gets, count
        ),
        Bar("the same: all requests / objects", None, [figure / count for figure in all_requests]),
    ]
    return Outcome("requests", samples, bars, load)


CASE = Case(
    "group_cold",
    "GETs that a server sees when 8 clients of 4 members read the same cold objects",
    "one GET an object",
    run,
)


def _reader(
    folder: Path, addresses: list[str], endpoint_url: str, load: dict[str, Any], seed: int
) -> Callable[[], int]:
    cache = client(folder, addresses, endpoint_url)
    draw, rounds = random.Random(seed), iter(range(load["rounds"]))

    def read_all() -> int:
        folder_of_round = folder / "s3" / BUCKET / str(next(rounds))
        paths = sorted(folder_of_round.rglob("*.bin"))
        for path in draw.sample(paths, len(paths)):
            key = path.relative_to(folder / "s3" / BUCKET)
            with cache.read(f"{DATASET}/{key}") as view:
                if bytes(view) != path.read_bytes():
                    raise RuntimeError(f"{key}: wrong bytes")
        return len(paths)

    return read_all
