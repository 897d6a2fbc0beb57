"""Making stores, and what is read from them beside bytes: all that perf/ knows of status page and files."""

from __future__ import annotations

from pathlib import Path

from forebay import BlockStore, Tier

SMALL_BLOCK_BYTES = 64 * 1024
SLOT_BYTES = 32  # of a block in the index
FILE_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system


def create(
    folder: Path, quota_bytes: int, block_bytes: int = SMALL_BLOCK_BYTES, *, maintainer: bool = True
) -> BlockStore:
    """Make a store with one MEM tier below the folder; block_bytes decides how small its segments may be."""
    tiers = [Tier(str(folder / "mem"), quota_bytes, "MEM")]
    return BlockStore(folder, tiers, block_bytes=block_bytes, maintainer=maintainer)


def counter(store: BlockStore, name: str) -> int:
    """Return a host-wide counter."""
    return int(store.status()["counters"][name])


def committed_bytes(store: BlockStore) -> int:
    """Return the bytes of all committed blocks."""
    return sum(int(tier["committed_bytes"]) for tier in store.status()["tiers"])


def written_bytes(store: BlockStore) -> int:
    """Return what was ever written into tiers: admitted, moved, promoted."""
    counters = store.status()["counters"]
    return sum(int(count) for name, count in counters.items() if name.startswith("written_bytes_"))


def segment_bytes(store: BlockStore) -> int:
    """Return the segment size of the first tier."""
    return int(store.status()["tiers"][0]["segment_bytes"])


def index_slots(store: BlockStore) -> int:
    """Return how many blocks the pages of the index have room for."""
    return int(store.status()["index"]["bytes"]) // SLOT_BYTES


def is_rebuilding(store: BlockStore) -> bool:
    """Say whether segments are still to be scanned."""
    return bool(store.status()["index"]["rebuilding"])


def index_file_bytes(cache_dir: Path) -> int:
    """Return what the index takes on its file system, as the file system says."""
    return _index_file(cache_dir).stat().st_blocks * FILE_BLOCK_BYTES


def remove_index(cache_dir: Path) -> None:
    """Lose the index of a store that nobody has open."""
    _index_file(cache_dir).unlink()


def _index_file(cache_dir: Path) -> Path:
    found = list(cache_dir.glob("v*/index"))
    if len(found) != 1:
        raise FileNotFoundError(f"{cache_dir}: expected one v*/index, found {len(found)}")
    return found[0]


def entries_file_bytes(cache_dir: Path) -> int:
    """Return what the entries of all objects take on their file system."""
    found = list(cache_dir.glob("v*/meta/entries-*.lmdb"))
    if len(found) != 1:
        raise FileNotFoundError(f"{cache_dir}: expected one entries file, found {len(found)}")
    return found[0].stat().st_blocks * FILE_BLOCK_BYTES
