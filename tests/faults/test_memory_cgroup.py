"""A memory cgroup smaller than the memory tier: the tier shrinks, nobody is killed.

tmpfs pages count towards the group of whoever writes them first and cannot be reclaimed; beyond the limit the
kernel kills instead of failing.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from forebay.config import MIB
from forebay.store import BlockStore, Tier
from tests.faults._child import Child, wait_until
from tests.faults._damage import CacheFolder, nothing_left
from tests.faults._damage_cgroup import MemoryGroup, memory_group

LIMIT = 60 * MIB
QUOTA = 200 * MIB
SIZE = 200_000


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    """A group with a limit of 60 MiB."""
    with memory_group() as group:
        group.limit(LIMIT)
        yield group


@pytest.fixture
def folder(tmp_path: Path, memory_path: Path) -> Iterator[CacheFolder]:
    """A memory tier larger than the limit, and a disk below it."""
    tiers = (Tier(str(memory_path / "mem"), QUOTA, "MEM"), Tier(str(tmp_path / "ssd"), "400MiB", "SSD"))
    folder = CacheFolder(tmp_path / "cache", tiers)
    with nothing_left(folder):
        yield folder


def _mem(store: BlockStore) -> dict[str, Any]:
    return dict(store.status()["tiers"][0])


def _run(group: MemoryGroup, body: Any) -> None:
    with Child(body) as child:
        child.result(300)
    assert group.kill_count() == 0


@pytest.mark.parametrize("retention", ["epoch", "lru"])
def test_filling_beyond_the_limit_shrinks_the_tier(
    group: MemoryGroup, folder: CacheFolder, retention: str
) -> None:
    def body(link: Connection) -> None:
        group.join()
        with folder.open(maintainer=True) as store:
            store.set_retention(0, retention)
            folder.fill(store, QUOTA // SIZE, SIZE)
            mem = _mem(store)
            assert mem["effective_bytes"] < LIMIT < mem["quota_bytes"]
            assert mem["used_bytes"] <= 0.9 * LIMIT
            assert "memory cgroup" in mem["cause"]
            assert mem["committed_blocks"] > 20, "what fits is used"
            assert _charged(group) < 0.95 * LIMIT
            assert len(folder.warm(store)) > 0.9 * len(folder.sizes)

    _run(group, body)


def test_a_process_that_grows_is_given_the_tiers_memory(group: MemoryGroup, folder: CacheFolder) -> None:
    """The trainer beside the cache asks for more, a piece at a time; blocks go, it is not killed."""

    def body(link: Connection) -> None:
        group.join()
        with folder.open(maintainer=True) as store:
            folder.fill(store, 300, SIZE)
            before = _mem(store)["used_bytes"]
            assert before > 30 * MIB
            pieces = []
            for _ in range(8):
                piece = mmap.mmap(-1, 2 * MIB)
                piece[:: mmap.PAGESIZE] = b"x" * (len(piece) // mmap.PAGESIZE)
                pieces.append(piece)
                wait_until(lambda: _charged(group) < 0.95 * LIMIT, "memory is given back")
            least = _mem(store)["used_bytes"]
            assert least < before - 10 * MIB
            folder.warm(store)
            for piece in pieces:
                piece.close()
            wait_until(lambda: _mem(store)["effective_bytes"] > least + 4 * MIB, "the quota grows again")
            folder.heal(store, list(folder.sizes)[-50:])

    _run(group, body)


def _charged(group: MemoryGroup) -> int:
    """What the kernel cannot take back by dropping file pages."""
    fields = dict(line.split() for line in (group.path / "memory.stat").read_text().splitlines())
    prefix = "total_" if "total_inactive_file" in fields else ""
    return group.usage_bytes() - sum(int(fields[f"{prefix}{kind}_file"]) for kind in ("inactive", "active"))
