"""torch_loader: an epoch of cached files through a DataLoader with workers, each batch one tensor.

The files are on ext4 with their pages in the page cache, and cached in a MEM tier; rclone shows the same
files through a mount, from its own cache of whole files. What a DataLoader does to bring a batch from a
worker to the main process is the same for all, and takes most of the time.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from forebay.api.torch import MapDataset, loader
from perf import workload
from perf.fuse.stage import Stage
from perf.fuse.systems import peer_versions, rclone_mount
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.loaders.files import DATASET, Files, FilesInto, cached, check_same, write_files
from perf.places import disk_folder, memory_folder
from perf.system.bucket import BUCKET, served

ROOM_BYTES = 3 << 30
OURS, FILES, RCLONE = "forebay", "ext4", "rclone"


def run(quick: bool) -> Outcome:
    """Let every dataset give an epoch in turn, each with workers that persist."""
    load = workload.load("torch", quick) | {"listed_count": 0}
    with ExitStack() as stack:
        disk = stack.enter_context(disk_folder())
        memory = stack.enter_context(memory_folder(ROOM_BYTES))
        paths = write_files(disk / "s3" / BUCKET, load)
        server = stack.enter_context(served(disk / "s3"))
        cache = stack.enter_context(cached(memory, disk / "s3" / BUCKET, load))
        mount = stack.enter_context(rclone_mount(Stage(memory, server, server.endpoint_url, load)))
        files = Files(paths)
        ours = MapDataset.from_prefix(cache, DATASET)
        mounted = Files([mount.root / path.name for path in paths])
        check_same(ours, files, 10)
        check_same(mounted, files, 1)  # all of it, which fills rclone's cache
        options: dict[str, Any] = {
            "batch_size": load["batch_size"],
            "shuffle": True,
            "num_workers": load["workers"],
            "persistent_workers": True,
        }
        loaders: dict[str, DataLoader[Any]] = {
            OURS: DataLoader(ours, **options),
            "forebay, order told": loader(ours, **options),
            FILES: DataLoader(files, **options),
            "ext4, readinto": DataLoader(FilesInto(paths), **options),
            RCLONE: DataLoader(mounted, **options),
        }
        contenders = [Contender(name, partial(_epoch, each, load)) for name, each in loaders.items()]
        samples = interleave(contenders, load["loader_rounds"])
    bars = [
        compare("DataLoader, 2 workers, 100 KiB / files on ext4", samples, OURS, FILES, 0.95),
        compare("DataLoader, 2 workers, 100 KiB / rclone mount", samples, OURS, RCLONE, 3.0),
        compare("the same / files on ext4 by readinto", samples, OURS, "ext4, readinto", None),
        compare("the same with the order told / files on ext4", samples, "forebay, order told", FILES, None),
    ]
    return Outcome("samples/s", samples, bars, load, peer_versions([RCLONE]))


CASE = Case(
    "torch_loader",
    "an epoch of 5,000 cached files of 100 KiB through a DataLoader with 2 workers",
    "a DataLoader's own way from worker to main process",
    run,
)


def _epoch(reading: DataLoader[Any], load: dict[str, Any]) -> float:
    """Take an epoch; returns samples per second."""
    started = time.perf_counter()
    taken = sum(len(batch) for batch in reading)
    seconds = time.perf_counter() - started
    if taken != load["file_count"]:
        raise RuntimeError(f"{taken} samples came of {load['file_count']}")
    return taken / seconds
