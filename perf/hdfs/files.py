"""Files in a folder, and a cache that holds all of them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forebay

DATASET = "files"


def write_files(folder: Path, count: int, size_bytes: int, seed: int) -> list[str]:
    """Write files of random bytes, named by their numbers; returns the names."""
    source = random.Random(seed)
    folder.mkdir(parents=True)
    names = [f"{number:06}.bin" for number in range(count)]
    for name in names:
        (folder / name).write_bytes(source.randbytes(size_bytes))
    return names


@contextmanager
def filled_cache(folder: Path, data: Path, load: dict[str, Any]) -> Iterator[forebay.Cache]:
    """Give a cache in that folder with all files below data in a MEM tier."""
    total_bytes = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    tiers = [forebay.Tier(str(folder / "tier"), load["quota_bytes"], "MEM")]
    with forebay.open(folder / "cache", tiers=tiers) as cache:
        cache.attach(DATASET, data.as_uri(), max_age=None)
        cache.load(DATASET).wait()
        if cache.usage(DATASET).cached_bytes != total_bytes:
            raise RuntimeError(f"not all files found room in a tier of {load['quota_bytes']} bytes")
        yield cache
