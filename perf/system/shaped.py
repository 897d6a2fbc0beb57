"""shaped: the read of `cold_object` behind a TCP proxy: 20 ms to the first byte, 200 MB/s in all.

The limit is the bandwidth of the proxy. boto3's pool of ranges through the same proxy shows what of it can
be had.
"""

from __future__ import annotations

from functools import partial

from forebay.testing.proxy_process import ProxyProcess
from perf import workload
from perf.harness import Bar, Case, Contender, Outcome, interleave
from perf.places import memory_folder
from perf.system.bucket import BUCKET, served, write_object
from perf.system.cold_object import KEY, MIB, ROOM_BYTES, mib_s, read_rate
from perf.system.peers import Boto3


def run(quick: bool) -> Outcome:
    """Read the object through the proxy with forebay and with boto3 in turn."""
    load = workload.load("cold_object", quick)
    size_bytes: int = load["object_bytes"]
    limit = load["bandwidth_mb_s"] * 1_000_000 / MIB
    with memory_folder(ROOM_BYTES) as folder:
        write_object(folder / "s3", KEY, size_bytes, load["seed"])
        with (
            served(folder / "s3") as server,
            ProxyProcess(
                server.address, delay_ms=load["delay_ms"], bandwidth=f"{load['bandwidth_mb_s']}MB"
            ) as proxy,
        ):
            boto, target, threads = Boto3(proxy.url, BUCKET), folder / "peer", load["shaped_threads"]
            contenders = [
                Contender("forebay", partial(read_rate, folder, proxy.url, load)),
                Contender(
                    f"boto3, {threads} threads",
                    lambda: mib_s(size_bytes, boto.fetch_one(KEY, size_bytes, target, threads)),
                ),
            ]
            samples = interleave(contenders, load["shaped_rounds"])
    shares = [figure / limit for figure in samples["forebay"]]
    bars = [Bar("cold read of 1 GiB, 20 ms and 200 MB/s / bandwidth", 0.95, shares)]
    return Outcome("MiB/s", samples, bars, load, {"bandwidth_mib_s": limit})


CASE = Case(
    "shaped",
    "read of one 1 GiB object behind 20 ms and 200 MB/s into an empty MEM tier",
    "the proxy's bandwidth",
    run,
)
