"""`make demo`: the main job, a training-style reader, straight from S3 and then through forebay.

1. A data set of small files and shards, with a manifest of SHA-256s, is made once.
2. `rclone serve s3` serves it behind a TCP proxy that simulates a distant store.
3. Two workers read one epoch straight from S3 with boto3.
4. Two workers read through forebay: a cold epoch, then a warm one; in a third every worker is killed; new
   ones open the same cache directory and read a whole warm epoch.
5. `forebay load` fills a second, empty cache directory ahead, and two workers read their first epoch from it.
6. `forebay mount` shows that cache as files, and two workers that know nothing of forebay read them.
Every sample's hash is verified in every pass. S3 requests and bytes are the proxy's own counts.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT))  # appended: engine/, peer/ and fuse/ there must not hide installed packages

import click  # noqa: E402
from rich.console import Console  # noqa: E402

import forebay  # noqa: E402
from forebay.testing.proxy_process import ProxyProcess  # noqa: E402
from forebay.testing.s3 import S3Server  # noqa: E402
from perf import report as bench_report  # noqa: E402
from perf import workload  # noqa: E402
from perf.demo import dataset, report  # noqa: E402
from perf.demo.passes import Pass, Stage  # noqa: E402
from perf.demo.progress import phase  # noqa: E402
from perf.demo.reader import ReaderFailed  # noqa: E402
from perf.demo.sources import ForebaySpec, S3Spec  # noqa: E402

BUILD = ROOT / "build" / "demo"
SHM = Path("/dev/shm")
MEM_ROOM_FACTOR = 3  # free tmpfs, in data set sizes, from which on a cache's tier lies there
MB = 1_000_000


@click.command()
@click.option("--quick", is_flag=True, help="A small data set: shows that it runs.")
def main(quick: bool) -> None:
    """Read a data set straight from S3, then through forebay, and compare."""
    console = bench_report.console()
    load = workload.load("demo", quick)
    data = _make_dataset(console, load)
    with (
        S3Server(data.served_folder) as server,
        ProxyProcess(
            server.address, delay_ms=load["delay_ms"], bandwidth=f"{load['bandwidth_mb_s']}MB"
        ) as proxy,
        _cache(data, load, proxy.url) as cache,
        _cache(data, load, proxy.url) as loaded,
    ):
        os.environ.update(server.environ())
        _tell(console, data, load, cache)
        straight = S3Spec(proxy.url, load["reads_in_flight"])
        started_s = time.monotonic()
        try:
            passes = list(Stage(console, data, load, proxy, straight, cache, loaded).passes())
        except ReaderFailed as error:
            console.print(f"[red]failed[/]: {error}")
            sys.exit(1)
    report.print_passes(console, passes)
    console.print(f"all passes: {time.monotonic() - started_s:.0f} s after set-up")
    console.print(f"plot: {report.plot_passes(passes, BUILD / 'demo.png')}")
    sys.exit(_verdict(console, passes))


def _make_dataset(console: Console, load: dict[str, Any]) -> dataset.Dataset:
    made_bytes = 0
    with phase(console, "data set, MB", dataset.total_bytes_about(load) // MB) as advance:

        def on_bytes(count: int) -> None:
            nonlocal made_bytes
            advance((made_bytes + count) // MB - made_bytes // MB)
            made_bytes += count

        return dataset.make(BUILD, load, on_bytes)


@contextmanager
def _cache(data: dataset.Dataset, load: dict[str, Any], endpoint_url: str) -> Iterator[ForebaySpec]:
    """Give an empty cache directory: its tier in memory where tmpfs has the room, else on disk."""
    in_memory = shutil.disk_usage(SHM).free >= MEM_ROOM_FACTOR * data.total_bytes
    with (
        tempfile.TemporaryDirectory(prefix="cache-", dir=BUILD) as cache_dir,
        tempfile.TemporaryDirectory(prefix="forebay-demo-", dir=SHM if in_memory else BUILD) as tier_dir,
    ):
        tier = forebay.Tier(tier_dir, load["cache_quota_bytes"], "MEM" if in_memory else "SSD")
        yield ForebaySpec(Path(cache_dir), tier, endpoint_url)


def _tell(console: Console, data: dataset.Dataset, load: dict[str, Any], cache: ForebaySpec) -> None:
    """Say what is real here and what is simulated."""
    console.print(
        f"data set: {len(data.samples):,} samples an epoch, {data.total_bytes / MB:,.0f} MB: "
        f"{load['file_count']:,} files of about 100 KiB, "
        f"{load['shard_count']} shards of {load['shard_bytes'] >> 20} MiB\n"
        f"S3: rclone serve s3 on this machine, behind a TCP proxy that simulates distance: "
        f"{load['delay_ms']} ms to the first byte, {load['bandwidth_mb_s']} MB/s in all\n"
        f"reader: {load['workers']} processes, {load['reads_in_flight']} reads in flight each, "
        f"every hash verified within the time told\n"
        f"cache: one {cache.tier.medium} tier, {cache.tier.path}"
    )


def _verdict(console: Console, passes: list[Pass]) -> int:
    wrong = [f"{each.name}: {what}" for each in passes for what in each.epoch.wrong]
    for line in wrong:
        console.print(f"[red]wrong hash[/] {line}")
    if not wrong:
        verified = sum(each.epoch.samples for each in passes)
        console.print(f"{verified:,} hashes verified, all right")
    return 1 if wrong else 0


if __name__ == "__main__":
    main()
