"""The command line around a training job: `forebay attach`, `load`, `du`, `mount`, `umount`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from forebay.testing.proxy_process import ProxyProcess
from perf.demo.dataset import BUCKET
from perf.demo.sources import DATASET, ForebaySpec, MountSpec

MB = 1_000_000


def load(console: Console, cache: ForebaySpec, proxy: ProxyProcess, bandwidth_mb_s: float) -> None:
    """Fill an empty cache directory, and tell how long it took beside the proxy's bandwidth.

    Raises: subprocess.CalledProcessError (a command failed, and has said why).
    """
    _forebay(cache, "attach", DATASET, f"s3://{BUCKET}", "--endpoint-url", cache.endpoint_url, "--immutable")
    proxy.stats(reset=True)
    started_s = time.monotonic()
    _forebay(cache, "load", DATASET)
    seconds = time.monotonic() - started_s
    moved = proxy.stats()
    rate_mb_s = moved["bytes_to_client"] / MB / seconds
    console.print(
        f"forebay load: {moved['bytes_to_client'] / MB:,.0f} MB in {seconds:.1f} s, start-up included: "
        f"{rate_mb_s:.0f} MB/s of the proxy's {bandwidth_mb_s}, {moved['requests']:,} requests"
    )
    _forebay(cache, "du", DATASET)


@contextmanager
def mounted(cache: ForebaySpec) -> Iterator[MountSpec]:
    """Show the data set as files: `forebay mount`, and `forebay umount` afterwards.

    Raises: subprocess.CalledProcessError (a command failed, and has said why).
    """
    folder = cache.cache_dir / "mnt"
    folder.mkdir()
    _forebay(cache, "mount", DATASET, str(folder), "--background")
    try:
        yield MountSpec(folder)
    finally:
        _forebay(cache, "umount", str(folder))


def _forebay(cache: ForebaySpec, *arguments: str) -> None:
    tier = f"{cache.tier.path}:{cache.tier.quota_bytes}:{cache.tier.medium}"
    options = ["--cache-dir", str(cache.cache_dir), "--tier", tier]
    subprocess.run([sys.executable, "-m", "forebay", *options, *arguments], check=True)
