"""mount_sequential: one large file through every mount, front to end, in reads of 1 MiB.

Each system has it in its cache, and the kernel's caches are dropped before each pass.
"""

from __future__ import annotations

from functools import partial

from perf import workload
from perf.fuse.mounts import Mount, drop_kernel_caches
from perf.fuse.passes import check_same, read_in_steps
from perf.fuse.stage import Stage
from perf.fuse.systems import BARE, NEW_JUICEFS, OURS, PEERS, SYSTEMS, all_mounted, peer_versions
from perf.harness import Case, Contender, Outcome, compare, compare_with_best, interleave
from perf.places import memory_folder
from perf.system.bucket import served, write_object

KEY = "large.bin"
ROOM_BYTES = 4 << 30


def run(quick: bool) -> Outcome:
    """Read the file by every system in turn."""
    load = workload.load("mount", quick)
    with memory_folder(ROOM_BYTES) as folder, served(folder / "s3") as server:
        stage = Stage(folder, server, server.endpoint_url, load)
        write_object(folder / "s3", KEY, load["large_bytes"], load["seed"])
        with all_mounted(stage, SYSTEMS) as mounts:
            for mount in mounts.values():
                check_same(mount.root, stage.objects, [KEY])
            contenders = [
                Contender(name, partial(_rate, name, mount, stage)) for name, mount in mounts.items()
            ]
            samples = interleave(contenders, load["large_rounds"])
    bars = [
        compare("mount, 256 MiB in sequence / bare pyfuse3", samples, OURS, BARE, 0.75),
        compare_with_best("mount, 256 MiB in sequence / best peer", samples, OURS, list(PEERS), 1.2),
        compare(f"mount, 256 MiB in sequence / {NEW_JUICEFS}", samples, OURS, NEW_JUICEFS, None),
    ]
    return Outcome("MiB/s", samples, bars, load, peer_versions(SYSTEMS))


CASE = Case(
    "mount_sequential",
    "sequential read of a cached file of 256 MiB through a mount, 1 MiB at a time",
    "a request for each run that the kernel reads ahead, two copies of the bytes",
    run,
)


def _rate(name: str, mount: Mount, stage: Stage) -> float:
    with stage.from_cache(name, stage.load["large_bytes"]):
        drop_kernel_caches()
        return read_in_steps(mount.root / KEY, stage.load["step_bytes"])
