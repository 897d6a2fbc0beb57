"""A /dev/shm of 64 MiB, as containers have it, and a memory tier of 4 GiB on it.

tmpfs pages come with the first write. One that cannot be had is an error of write(2), but a SIGBUS through a
map.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from forebay.config import MIB
from forebay.store import BlockStore, Tier
from tests.faults._child import run
from tests.faults._damage import CacheFolder, block
from tests.faults._damage_mounts import cover, private_mounts

SHM_BYTES = 64 * MIB
SIZE = 400_000


@contextmanager
def _small_shm(tmp_path: Path) -> Iterator[CacheFolder]:
    """A cache on a /dev/shm of 64 MiB that only this process sees."""
    private_mounts()
    cover("/dev/shm")
    tiers = (Tier("/dev/shm/forebay", "4GiB", "MEM"), Tier(str(tmp_path / "ssd"), "512MiB", "SSD"))
    yield CacheFolder(tmp_path / "cache", tiers)


def _used_bytes() -> int:
    stats = os.statvfs("/dev/shm")
    return (stats.f_blocks - stats.f_bfree) * stats.f_frsize


def _mem(store: BlockStore) -> dict[str, Any]:
    return dict(store.status()["tiers"][0])


def _shrinks(tmp_path: Path, retention: str) -> None:
    with _small_shm(tmp_path) as folder, folder.open(block_bytes=4 * MIB, rows=64, maintainer=True) as store:
        store.set_retention(0, retention)
        folder.fill(store, 400, SIZE)
        mem = _mem(store)
        assert mem["effective_bytes"] < SHM_BYTES < mem["quota_bytes"]
        assert "no room" in mem["cause"]
        assert mem["committed_blocks"] > 40, "what fits is used"
        assert store.status()["tiers"][1]["committed_blocks"] > 100, "the rest lies on the disk"
        assert len(folder.warm(store)) > 0.7 * len(folder.sizes)
        for key in list(folder.sizes)[-50:]:
            folder.heal(store, [key])


def _others_fill_it(tmp_path: Path, retention: str) -> None:
    """Another program takes all that is left, and gives it back."""
    with _small_shm(tmp_path) as folder, folder.open(block_bytes=4 * MIB, rows=64) as store:
        store.set_retention(0, retention)
        folder.fill(store, 60, SIZE)
        free = os.statvfs("/dev/shm").f_bavail * os.statvfs("/dev/shm").f_frsize
        with open("/dev/shm/ballast", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free)
        folder.fill(store, 100, SIZE, "while full")
        for number in range(20):
            with store.reserve(b"reserved%d" % number, SIZE) as buffer:
                buffer[:] = block(b"reserved%d" % number, SIZE)
            folder.sizes[b"reserved%d" % number] = SIZE
        folder.warm(store)
        for _ in range(20):
            store.maintain()
        folder.heal(store)
        os.unlink("/dev/shm/ballast")
        for _ in range(20):
            store.maintain()
        before = _mem(store)["committed_blocks"]
        folder.fill(store, 100, SIZE, "again")
        assert _mem(store)["committed_blocks"] > before
        folder.heal(store, list(folder.sizes)[-100:])
        assert _used_bytes() <= 0.9 * SHM_BYTES + 4 * MIB


def _no_room_for_the_shared_table(tmp_path: Path, retention: str) -> None:
    """A full /dev/shm: the table lies in the cache directory, and the tier takes nothing for now."""
    with _small_shm(tmp_path) as folder:
        with open("/dev/shm/ballast", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, SHM_BYTES)
        with folder.open(block_bytes=4 * MIB, rows=64) as store:
            store.set_retention(0, retention)
            assert store.status()["index"]["live_path"].startswith(str(folder.path))
            folder.fill(store, 20, SIZE)
            assert folder.warm(store) == set(folder.sizes)
            assert _mem(store)["committed_blocks"] == 0
        os.unlink("/dev/shm/ballast")
        with folder.open(block_bytes=4 * MIB, rows=64) as store:
            assert folder.warm(store) == set(folder.sizes)
            folder.fill(store, 20, SIZE, "again")
            assert _mem(store)["committed_blocks"] == 20


@pytest.mark.parametrize(
    ("scene", "retention"),
    [
        (_shrinks, "epoch"),
        (_shrinks, "lru"),
        (_others_fill_it, "epoch"),
        (_others_fill_it, "s3fifo"),
        (_no_room_for_the_shared_table, "epoch"),
    ],
)
def test_a_small_shm(tmp_path: Path, scene: Callable[[Path, str], None], retention: str) -> None:
    def body(link: Connection) -> None:
        scene(tmp_path, retention)

    run(body)
