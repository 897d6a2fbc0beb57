"""safetensors: all tensors of a file of 1 GiB that is cached whole, over the cached bytes themselves.

Beside it, without a bar, the format's own library from the same file on ext4, in the page cache, and
the tensors in memory of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import forebay
from forebay.api.torch import load_safetensors, map_safetensors
from perf import workload
from perf.harness import Case, Contender, Outcome, compare, interleave, within_limit
from perf.places import disk_folder, memory_folder

DATASET = "models"
NAME = "model.safetensors"
PATH = f"{DATASET}/{NAME}"
LIMIT_S = 0.05
ROOM_BYTES = 3 << 30
MAPPED, LOADED, LIBRARY = "forebay, mapped", "forebay, loaded", "safetensors, ext4"

Tensors = dict[str, torch.Tensor]


def run(quick: bool) -> Outcome:
    """Make the tensors anew in each round, by each way in turn."""
    load = workload.load("torch", quick)
    with disk_folder() as disk, memory_folder(ROOM_BYTES) as memory:
        (disk / "data").mkdir()
        file = disk / "data" / NAME
        _write(file, load)
        tiers = [forebay.Tier(str(memory / "tier"), load["tensors_quota_bytes"], medium="MEM")]
        with forebay.open(memory / "cache", tiers=tiers) as cache:
            cache.attach(DATASET, f"file://{disk / 'data'}", max_age=None)
            cache.load(DATASET, wait=True)
            _check(cache, file)
            contenders = [
                Contender(MAPPED, partial(_seconds, partial(map_safetensors, cache, PATH), load)),
                Contender(LOADED, partial(_seconds, partial(load_safetensors, cache, PATH), load)),
                Contender(LIBRARY, partial(_seconds, partial(load_file, file), load)),
            ]
            samples = interleave(contenders, load["tensors_rounds"])
    bars = [
        within_limit("safetensors of 1 GiB, cached whole, mapped / 50 ms", samples[MAPPED], LIMIT_S),
        compare("the same / the library, from ext4", samples, MAPPED, LIBRARY, None, "at most"),
        compare("the same, loaded / the library, from ext4", samples, LOADED, LIBRARY, None, "at most"),
    ]
    return Outcome("s", samples, bars, load)


CASE = Case(
    "safetensors",
    "all tensors of a safetensors file of 1 GiB that is cached whole",
    "a tensor object for each; a copy at memory bandwidth where they are loaded",
    run,
)


def _write(file: Path, load: dict[str, Any]) -> None:
    """Write the file, of tensors of one size."""
    torch.manual_seed(load["seed"])
    width = load["tensors_bytes"] // load["tensor_count"] // 1_024 // 4
    save_file({f"layer{n}": torch.randn(width, 1_024) for n in range(load["tensor_count"])}, file)


def _check(cache: forebay.Cache, file: Path) -> None:
    """Compare all tensors, and see that no byte of them was copied. Raises: RuntimeError."""
    with cache.read(PATH) as view:
        if not view.zero_copy:
            raise RuntimeError("the file does not lie whole")
    mapped, again = map_safetensors(cache, PATH), map_safetensors(cache, PATH)
    for name, tensor in load_file(file).items():
        if not torch.equal(mapped[name], tensor):
            raise RuntimeError(f"{name} is not what the file holds")
        if mapped[name].data_ptr() != again[name].data_ptr():
            raise RuntimeError(f"{name} was copied")


def _seconds(make: Callable[[], Tensors], load: dict[str, Any]) -> float:
    started = time.perf_counter()
    tensors = make()
    seconds = time.perf_counter() - started
    if len(tensors) != load["tensor_count"]:
        raise RuntimeError(f"{len(tensors)} tensors came")
    return seconds
