"""A cache that is full, evicts what is read or is damaged, as a mount shows it: the right bytes always."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from tests.faults._damage import flip, punch
from tests.fuse.conftest import Mounting

BLOCK_BYTES = 64 * KIB
SIZE = 20 * BLOCK_BYTES + 5


@pytest.fixture
def source(tmp_path: Path) -> dict[str, bytes]:
    """Files that the small tiers of these tests do not hold together."""
    folder = tmp_path / "source"
    folder.mkdir()
    contents = {f"file{number}": os.urandom(SIZE) for number in range(12)}
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return contents


def open_cache(tmp_path: Path, tier: Tier, monkeypatch: pytest.MonkeyPatch, checksum: str = "load") -> Cache:
    for name in [name for name in os.environ if name.startswith("FOREBAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(tmp_path / "cache"))
    # Of each process: the mount verifies what it reads as this one does.
    monkeypatch.setenv("FOREBAY_CHECKSUM", checksum)
    return Cache(tmp_path / "cache", [tier], block_bytes=BLOCK_BYTES, checksum=checksum)


@pytest.mark.parametrize("retention", ["epoch", "s3fifo"])
def test_a_tier_that_is_full(
    source: dict[str, bytes],
    tmp_path: Path,
    memory_path: Path,
    mounted: Mounting,
    monkeypatch: pytest.MonkeyPatch,
    retention: str,
) -> None:
    """Of which nothing is evicted (epoch), or everything in turn, while four read."""
    with open_cache(tmp_path, Tier(str(memory_path), 8 * MIB, "MEM"), monkeypatch) as cache:
        cache.attach("d", (tmp_path / "source").as_uri(), max_age=None, retention=retention)
        path = mounted().path
        wrong: list[str] = []

        def read_all(first: int) -> None:
            names = sorted(source)
            for name in names[first:] + names[:first]:
                with open(path / name, "rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    if file.read() != source[name]:
                        wrong.append(name)

        threads = [threading.Thread(target=read_all, args=(3 * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert cache.status()["committed_bytes"] < 8 * MIB
        assert cache.check().ok


@pytest.mark.parametrize("damage", ["flipped", "punched"])
def test_damaged_blocks_are_read_from_the_source(
    source: dict[str, bytes],
    tmp_path: Path,
    mounted: Mounting,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    tier = tmp_path / "tier"
    with open_cache(tmp_path, Tier(str(tier), 64 * MIB, "SSD"), monkeypatch, checksum="read") as cache:
        cache.attach("d", (tmp_path / "source").as_uri(), max_age=None)
        for name in source:
            cache.read(f"d/{name}").release()
        mount = mounted()
        victims = sorted(source)[:3]
        places = [
            (*place_of(tier, source[name][block * BLOCK_BYTES :][:64]), at)
            for name in victims
            for block, at in ((0, 0), (5, 40_000), (19, BLOCK_BYTES - 1))
        ]
        for segment, begin, at in places:
            if damage == "flipped":
                flip(segment, begin + at, 3)
            else:
                punch(segment, (begin + at) // 4096 * 4096, 4096)
        for _ in range(2):
            for name, data in source.items():
                with open(mount.path / name, "rb", buffering=0) as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    assert file.read() == data, name


def place_of(tier: Path, begin: bytes) -> tuple[Path, int]:
    """Find where a block begins in the segments of a tier."""
    for path in [*tier.glob("v1/seg-*"), *tier.glob("v1/whole-*")]:
        at = path.read_bytes().find(begin)
        if at >= 0:
            return path, at
    raise AssertionError("it is in no segment")
