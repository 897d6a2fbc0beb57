"""Small stores for the unit tests, and bytes to put in them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forebay.config import KIB, MIB, Medium
from forebay.store import BlockStore, Tier


def noise(length: int, seed: int = 0) -> bytes:
    """Return bytes that are the same for the same arguments, and hardly ever for others."""
    return random.Random(seed * 1_000_003 + length).randbytes(length)


def counted(store: BlockStore) -> dict[str, int]:
    """Return the counters that are not zero."""
    return {name: value for name, value in store.status()["counters"].items() if value}


def counting(store: BlockStore) -> Callable[[], dict[str, int]]:
    """Return a function that says by how much each counter has changed since now."""
    before = store.status()["counters"]

    def changes() -> dict[str, int]:
        after = store.status()["counters"]
        return {name: after[name] - before[name] for name in after if after[name] != before[name]}

    return changes


def leases(store: BlockStore) -> int:
    """Return how many leases all processes hold."""
    return sum(holder["leases"] for holder in store.status()["holders"])


def maintain(store: BlockStore, until: Callable[[], bool], rounds: int = 1000) -> None:
    """Do rounds of maintenance until something holds."""
    for _ in range(rounds):
        if until():
            return
        store.maintain()
    raise AssertionError("the maintainer does not get there")


def rebuilt(store: BlockStore) -> BlockStore:
    """Finish the rebuild that goes on."""
    maintain(store, lambda: not store.status()["index"]["rebuilding"])
    return store


class Stores:
    """Opens block stores under one folder on tmpfs and one on disk, and closes what is still open.

    With blocks of 64 KiB a tier of 64 MiB has 63 segments of 1 MiB, so that eviction has something to choose.
    """

    def __init__(self, memory_path: Path, disk_path: Path) -> None:
        self.path = disk_path / "cache"
        self._folders = {"MEM": memory_path, "SSD": disk_path, "HDD": disk_path}
        self._opened: list[BlockStore] = []

    def tier(self, quota: int = 64 * MIB, medium: Medium = "MEM", name: str = "tier", **marks: float) -> Tier:
        """A tier whose directory lies on the medium that it names (nearly: HDD is taken on trust)."""
        return Tier(str(self._folders[medium] / f"{name}-{medium}"), quota, medium, **marks)

    def open(self, *tiers: Tier, path: Path | None = None, **options: Any) -> BlockStore:
        """Open with these tiers; with none, one of 64 MiB in memory."""
        options = {"block_bytes": 64 * KIB, "maintainer": False} | options
        store = BlockStore(path or self.path, tiers or (self.tier(),), **options)
        self._opened.append(store)
        return store

    def reopen(self, **options: Any) -> BlockStore:
        """Open what is there, with the tiers that it remembers."""
        store = BlockStore(self.path, **{"maintainer": False} | options)
        self._opened.append(store)
        return store

    def close(self) -> None:
        """Close all. A test that keeps a view over this has kept its store open, which is its own affair."""
        for store in self._opened:
            store.close()
