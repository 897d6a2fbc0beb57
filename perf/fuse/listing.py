"""mount_list: `ls -l` of a directory of 100,000 entries through every mount that knows them.

The names are read, then the attributes of each are asked for; the kernel's caches are dropped before each
pass. The entries come from a listing double (perf/system/keys.py); those of JuiceFS were made in its metadata
server. s3fs is not there: it asks the server about every single object of a directory that it lists.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from perf import workload
from perf.fuse.mounts import Mount, drop_kernel_caches
from perf.fuse.passes import list_long, rate
from perf.fuse.stage import Stage
from perf.fuse.systems import OURS, SYSTEMS, all_mounted, juicefs_listed, peer_versions
from perf.harness import Case, Contender, Outcome, compare_with_best, interleave
from perf.places import memory_folder
from perf.system.bucket import served
from perf.system.keys import key_of, listing_server

ROOM_BYTES = 1 << 30
PEERS = ("rclone", "JuiceFS")


def run(quick: bool) -> Outcome:
    """List by every system in turn."""
    load = workload.load("mount", quick)
    count: int = load["listed_count"]
    with memory_folder(ROOM_BYTES) as folder, _mounts(folder, load) as mounts:
        for mount in mounts.values():
            os.listdir(mount.root)  # some list the bucket only now
        contenders = [Contender(name, partial(_rate, mount, count)) for name, mount in mounts.items()]
        samples = interleave(contenders, load["list_rounds"], warm_ups=0)
    bars = [compare_with_best("mount, ls -l of 100,000 entries / best peer", samples, OURS, PEERS, 3.0)]
    return Outcome("entries/s", samples, bars, load, peer_versions())


CASE = Case(
    "mount_list",
    "ls -l of 100,000 entries through a mount, warm metadata",
    "the kernel's part: pages of entries, an inode for each",
    run,
)


@contextmanager
def _mounts(folder: Path, load: dict[str, Any]) -> Iterator[dict[str, Mount]]:
    """Give the directory in every mount."""
    count = load["listed_count"]
    (folder / "s3").mkdir()
    with served(folder / "s3") as server, listing_server(count, count, delay_ms=0) as listing_url:
        made_up = Stage(folder, server, listing_url, load)
        systems = {name: SYSTEMS[name] for name in (OURS, "rclone")}
        with (
            all_mounted(made_up, systems) as mounts,
            juicefs_listed(Stage(folder, server, server.endpoint_url, load)) as juicefs,
        ):
            name = key_of(0, count).partition("/")[0]
            directories = {system: Mount(mount.root / name, mount.pid) for system, mount in mounts.items()}
            yield {**directories, "JuiceFS": juicefs}


def _rate(directory: Mount, expected: int) -> float:
    drop_kernel_caches()
    started = time.perf_counter()
    count = list_long(directory.root)
    figure = rate(count, started)
    if count != expected:
        raise RuntimeError(f"{directory.root}: {count} entries of {expected}")
    return figure
