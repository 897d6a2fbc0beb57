"""Files as a torch dataset reads them without a cache, and the same files cached."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.utils.data

import forebay

DATASET = "files"


class Files(torch.utils.data.Dataset[torch.Tensor]):
    """Files by number, each a tensor of its bytes, as a dataset is usually written."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with open(self._paths[index], "rb") as file:
            # torch has no read-only tensors, so the bytes need memory that may be written to.
            return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)


class FilesInto(Files):
    """The same, read into a buffer of the file's size: one copy less."""

    def __getitem__(self, index: int) -> torch.Tensor:
        with open(self._paths[index], "rb", buffering=0) as file:
            data = torch.empty(os.fstat(file.fileno()).st_size, dtype=torch.uint8)
            file.readinto(data.numpy().data)
            return data


def write_files(folder: Path, load: dict[str, Any]) -> list[Path]:
    """Write the files; their pages are in the page cache then."""
    folder.mkdir(parents=True)
    source = random.Random(load["seed"])
    paths = [folder / f"{number:06}.bin" for number in range(load["file_count"])]
    for path in paths:
        path.write_bytes(source.randbytes(load["file_bytes"]))
    return paths


@contextmanager
def cached(folder: Path, files: Path, load: dict[str, Any]) -> Iterator[forebay.Cache]:
    """Give a cache with all files in a MEM tier. Raises: RuntimeError (they are not)."""
    tiers = [forebay.Tier(str(folder / "tier"), load["quota_bytes"], medium="MEM")]
    with forebay.open(folder / "cache", tiers=tiers) as cache:
        cache.attach(DATASET, f"file://{files}", max_age=None)
        cache.load(DATASET, wait=True)
        if cache.usage(DATASET).cached_bytes != load["file_count"] * load["file_bytes"]:
            raise RuntimeError("not all files found room in the tier")
        yield cache


def check_same(dataset: Any, files: Files, every: int) -> None:
    """Compare samples. Raises: RuntimeError (a wrong byte)."""
    for index in range(0, len(files), every):
        if not torch.equal(dataset[index], files[index]):
            raise RuntimeError(f"sample {index} is not what the file holds")
