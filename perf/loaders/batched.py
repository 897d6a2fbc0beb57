"""torch_batched: batches of cached files to tensors in the process itself, against files on ext4.

Each sample is a tensor with memory of its own; beside it, without a bar, tensors over the cached bytes.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from forebay.api.torch import MapDataset
from perf import workload
from perf.harness import Case, Contender, Outcome, compare, interleave
from perf.loaders.files import DATASET, Files, FilesInto, cached, check_same, write_files
from perf.places import disk_folder, memory_folder

ROOM_BYTES = 2 << 30
OURS, MAPPED, FILES, INTO = "forebay", "forebay, zero_copy", "ext4", "ext4, readinto"


def run(quick: bool) -> Outcome:
    """Read all files in fresh orders, by each dataset in turn."""
    load = workload.load("torch", quick)
    with disk_folder() as disk, memory_folder(ROOM_BYTES) as memory:
        paths = write_files(disk / "data", load)
        with cached(memory, disk / "data", load) as cache:
            files = Files(paths)
            datasets: dict[str, Any] = {
                OURS: MapDataset.from_prefix(cache, DATASET),
                MAPPED: MapDataset.from_prefix(cache, DATASET, zero_copy=True),
                FILES: files,
                INTO: FilesInto(paths),
            }
            check_same(datasets[OURS], files, 10)
            check_same(datasets[MAPPED], files, 10)
            contenders = [Contender(name, partial(_epoch, each, load)) for name, each in datasets.items()]
            samples = interleave(contenders, load["batched_rounds"])
    title = "batched samples of 100 KiB, no workers"
    bars = [
        compare(f"{title} / open + read on ext4", samples, OURS, FILES, 2.0),
        compare("the same / open + readinto on ext4", samples, OURS, INTO, None),
        compare("the same with zero_copy / open + read on ext4", samples, MAPPED, FILES, None),
    ]
    return Outcome("samples/s", samples, bars, load)


CASE = Case(
    "torch_batched",
    "batches of 64 cached files of 100 KiB to tensors, without workers",
    "one copy at memory bandwidth; with zero_copy a hit of the store",
    run,
)


def _epoch(dataset: Any, load: dict[str, Any]) -> float:
    """Take an epoch; returns samples per second."""
    reading: DataLoader[Any] = DataLoader(
        dataset, batch_size=load["batch_size"], shuffle=True, num_workers=0, collate_fn=list
    )
    started = time.perf_counter()
    taken_bytes = sum(len(sample) for batch in reading for sample in batch)
    seconds = time.perf_counter() - started
    if taken_bytes != load["file_count"] * load["file_bytes"]:
        raise RuntimeError(f"{taken_bytes} bytes came")
    rate: float = load["file_count"] / seconds
    return rate
