"""mount_memory: private memory of the mount process after 1 M files were walked.

The attributes of each are asked for. The files are those of a listing double, a thousand in a directory. The
kernel keeps what it looked up, so that the mount has to answer for a million inodes; then it forgets, and the
mount is walked once more.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from perf import memory, workload
from perf.fuse.mounts import drop_kernel_caches
from perf.fuse.passes import list_long
from perf.fuse.stage import Stage
from perf.fuse.systems import forebay_mount
from perf.harness import Case, Facts, Outcome, within_limit
from perf.places import memory_folder
from perf.system.bucket import served
from perf.system.keys import listing_server

ROOM_BYTES = 3 << 30
LIMIT_BYTES = 150 << 20


def run(quick: bool) -> Outcome:
    """Walk a mount twice and look at its process."""
    load = workload.load("mount", quick)
    with memory_folder(ROOM_BYTES) as folder:
        (folder / "s3").mkdir()
        with (
            served(folder / "s3") as server,
            listing_server(load["walked_count"], load["walked_folder_count"], delay_ms=0) as url,
            forebay_mount(Stage(folder, server, url, load)) as mount,
        ):
            before = memory.private_bytes(mount.pid)
            rates, figures = [], []
            for _ in range(2):
                rates.append(_walk(mount.root, load))
                figures.append(float(memory.private_bytes(mount.pid)))
                drop_kernel_caches()
            facts: Facts = {
                "private_bytes_before": before,
                "resident_bytes": memory.resident_bytes(mount.pid),
                "walked_files_per_s": max(rates),
            }
    bars = [within_limit("mount, private bytes after 1 M files walked / 150 MiB", figures, LIMIT_BYTES)]
    return Outcome("bytes", {"forebay": figures}, bars, load, facts)


CASE = Case(
    "mount_memory",
    "private memory of the mount process after 1 M files walked",
    "what it keeps of each inode that the kernel knows",
    run,
)


def _walk(root: Path, load: dict[str, Any]) -> float:
    """List every directory with the attributes of its files; returns files per second."""
    started = time.perf_counter()
    count = sum(list_long(directory) for directory in sorted(root.iterdir()))
    seconds = time.perf_counter() - started
    if count != load["walked_count"]:
        raise RuntimeError(f"{root}: {count} files of {load['walked_count']}")
    return count / seconds
