"""A cache that is smaller than what is read through it, so that blocks are evicted all the time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier

BLOCK_BYTES = 64 * KIB
SIZES = (0, 1, 4_095, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 300_000, 1_000_000, 3 * MIB + 7, 9 * MIB)


@contextmanager
def small_cache(folder: Path, memory: Path, environment: pytest.MonkeyPatch) -> Iterator[Cache]:
    """Open an empty cache of 8 MiB, which the environment names to processes that the test starts."""
    for name in [name for name in os.environ if name.startswith("FOREBAY_")]:
        environment.delenv(name)
    environment.setenv("FOREBAY_CACHE_DIR", str(folder))
    with Cache(folder, [Tier(str(memory), 8 * MIB, "MEM")], block_bytes=BLOCK_BYTES) as cache:
        yield cache


def fill(folder: Path) -> dict[str, bytes]:
    """Fill a folder with files of odd sizes, more than that cache holds, and return them by path."""
    contents = {f"sub{size % 2}/{size}": os.urandom(size) for size in SIZES}
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return contents
