"""mount_list: `ls -l` of a directory of 100,000 entries through every mount that knows them.

It is the program itself that runs, for it asks for more than names and attributes: for a label and an access
list of each entry, unless it is told that there are none. Beside it the least that a program can ask, the
attributes of each entry as its name comes. The kernel's caches are dropped before each pass. The entries come
from a listing double (perf/system/keys.py); those of JuiceFS were made in its metadata server. s3fs is not
there: it asks the server about every single object of a directory that it lists.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from perf import workload
from perf.fuse import juicefs
from perf.fuse.mounts import Mount, drop_kernel_caches
from perf.fuse.passes import list_long, ls_long, rate
from perf.fuse.stage import Stage
from perf.fuse.systems import NEW_JUICEFS, OLD_JUICEFS, OURS, SYSTEMS, all_mounted, peer_versions
from perf.harness import Bar, Case, Contender, Outcome, Samples, compare, compare_with_best, interleave
from perf.places import memory_folder
from perf.system.bucket import served
from perf.system.keys import key_of, listing_server

ROOM_BYTES = 1 << 30
PEERS = ("rclone", OLD_JUICEFS)
LS, WALK = "ls -l", "names and attributes"
PASSES: dict[str, Callable[[Path], int]] = {LS: ls_long, WALK: list_long}


def run(quick: bool) -> Outcome:
    """List by every system in turn."""
    load = workload.load("mount", quick)
    count: int = load["listed_count"]
    with memory_folder(ROOM_BYTES) as folder, _mounts(folder, load) as mounts:
        for mount in mounts.values():
            os.listdir(mount.root)  # some list the bucket only now
        contenders = [
            Contender(f"{pass_}, {name}", partial(_rate, run_pass, mount, count))
            for pass_, run_pass in PASSES.items()
            for name, mount in mounts.items()
        ]
        samples = interleave(contenders, load["list_rounds"], warm_ups=0)
    return Outcome("entries/s", samples, _bars(samples), load, peer_versions((*PEERS, NEW_JUICEFS)))


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
            juicefs.listed(Stage(folder, server, server.endpoint_url, load)) as volumes,
        ):
            name = key_of(0, count).partition("/")[0]
            directories = {system: Mount(mount.root / name, mount.pid) for system, mount in mounts.items()}
            yield directories | volumes


def _bars(samples: Samples) -> list[Bar]:
    def against_peers(title: str, pass_: str, target: float | None) -> list[Bar]:
        ours, rivals = f"{pass_}, {OURS}", [f"{pass_}, {name}" for name in PEERS]
        new = f"{pass_}, {NEW_JUICEFS}"
        return [
            compare_with_best(f"{title} / best peer", samples, ours, rivals, target),
            compare(f"{title} / {NEW_JUICEFS}", samples, ours, new, None),
        ]

    return [
        *against_peers("mount, ls -l of 100,000 entries", LS, 3.0),
        *against_peers("mount, names and attributes of 100,000 entries", WALK, None),
    ]


def _rate(run_pass: Callable[[Path], int], directory: Mount, expected: int) -> float:
    drop_kernel_caches()
    started = time.perf_counter()
    count = run_pass(directory.root)
    figure = rate(count, started)
    if count != expected:
        raise RuntimeError(f"{directory.root}: {count} entries of {expected}")
    return figure
