"""What the damage tests share: blocks that can be told by their key, cache folders, counts of what leaks.

The oracle of every test here: a read gives the bytes that were put or nothing, in time; once the fault is
healed the same operation succeeds; nothing is left behind.
"""

from __future__ import annotations

import gc
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from forebay.config import KIB, MIB, Medium
from forebay.store import BlockStore, Tier
from tests.faults._child import Child

MEDIA: tuple[Medium, ...] = ("MEM", "SSD")
INDEXES = ("trusted", "lost")  # what a test does to the index before it opens the store again

_POOL = hashlib.shake_128(b"blocks").digest(3 * MIB)


def block(key: bytes, size_bytes: int) -> bytes:
    """Give the one right content of a key at a size: no two keys have the same bytes at the same place."""
    digest = hashlib.blake2b(b"%d " % size_bytes + key, digest_size=32).digest()
    begin = int.from_bytes(digest[:8], "little") % (2 * MIB)
    content = digest + _POOL[begin : begin + min(size_bytes, MIB)]
    while len(content) < size_bytes:
        content += hashlib.blake2b(content[-MIB:], digest_size=32).digest() + _POOL[begin : begin + MIB - 1]
    return content[:size_bytes]


@dataclass
class CacheFolder:
    """A cache directory with its tiers and what was put into it: the reference."""

    path: Path
    tiers: tuple[Tier, ...]
    sizes: dict[bytes, int] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The folder of the format within the cache directory."""
        return self.path / "v1"

    @property
    def index(self) -> Path:
        """The index file."""
        return self.home / "index"

    def tier_home(self, number: int = 0) -> Path:
        """The folder of segments of a tier."""
        return Path(self.tiers[number].path) / "v1"

    def segments(self, number: int = 0) -> list[Path]:
        """The segment files of a tier that are there."""
        return sorted([*self.tier_home(number).glob("seg-*"), *self.tier_home(number).glob("whole-*")])

    def open(self, **options: Any) -> BlockStore:
        """Open the store; small segments, no thread unless asked for one."""
        chosen: dict[str, Any] = {"block_bytes": 64 * KIB, "maintainer": False, "rows": 16}
        return BlockStore(self.path, self.tiers, **{**chosen, **options})

    def put(self, store: BlockStore, key: bytes, size_bytes: int, **options: Any) -> bool:
        """Put the key's block and remember it when it was admitted."""
        admitted = store.put(key, block(key, size_bytes), **options)
        if admitted:
            self.sizes[key] = size_bytes
        return admitted

    def fill(self, store: BlockStore, count: int, size_bytes: int, prefix: str = "k") -> list[bytes]:
        """Put so many blocks, all of which must be admitted."""
        keys = [f"{prefix}{number}".encode() for number in range(count)]
        for key in keys:
            assert self.put(store, key, size_bytes)
        return keys

    def made(self, count: int = 40, size_bytes: int = 20_000, **options: Any) -> list[bytes]:
        """Make the store with so many blocks and close it cleanly."""
        with self.open(**options) as store:
            return self.fill(store, count, size_bytes)

    def left_dead(self, count: int = 40, size_bytes: int = 20_000, **options: Any) -> list[bytes]:
        """Make the store in a process that is killed with it open, so that no clean flag is written."""

        def body(link: Connection) -> None:
            store = self.open(**options)
            link.send(self.fill(store, count, size_bytes))
            link.recv()

        with Child(body) as child:
            keys: list[bytes] = child.receive()
            child.kill()
            child.exit_code()
        self.sizes |= dict.fromkeys(keys, size_bytes)
        return keys

    def warm(self, store: BlockStore, keys: Iterable[bytes] | None = None) -> set[bytes]:
        """Read keys (all that were put) and return which are there. Wrong bytes fail the test."""
        found = set()
        for key in self.sizes if keys is None else keys:
            view = store.get(key)
            if view is not None:
                with view:
                    assert bytes(view) == block(key, self.sizes[key]), f"wrong bytes under {key!r}"
                found.add(key)
        return found

    def heal(self, store: BlockStore, keys: Iterable[bytes] | None = None) -> None:
        """Do what a cache does after a miss, put again, and find every block there."""
        wanted = set(self.sizes if keys is None else keys)
        for key in wanted - self.warm(store, wanted):
            assert store.put(key, block(key, self.sizes[key])), f"{key!r} is not admitted again"
        assert self.warm(store, wanted) == wanted

    def place_of(self, key: bytes, tier: int = 0) -> tuple[Path, int]:
        """Find the key's bytes: file and offset. They must be there once."""
        content = block(key, self.sizes[key])
        found = [(path, path.read_bytes().find(content)) for path in self.segments(tier)]
        ((path, offset),) = [(path, offset) for path, offset in found if offset >= 0]
        return path, offset


def expect_lost(folder: CacheFolder, index: str, lost: set[bytes]) -> None:
    """Open the store with its index or without: only these blocks are gone, and can be put again."""
    if index == "lost":
        folder.index.unlink()
    with folder.open() as store:
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes) - lost
        folder.heal(store)
        assert store.check().ok


def one_tier(root: Path, tier_path: Path, medium: Medium, quota: int | str = "16MiB") -> CacheFolder:
    """Make a cache folder of a single tier."""
    return CacheFolder(root, (Tier(str(tier_path), quota, medium),))


def count(store: BlockStore, name: str) -> int:
    """One counter of the store."""
    return int(store.status()["counters"][name])


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file in place."""
    with path.open("r+b", buffering=0) as file:
        value = os.pread(file.fileno(), 1, offset)[0]
        os.pwrite(file.fileno(), bytes([value ^ 1 << bit]), offset)


def punch(path: Path, offset: int, length_bytes: int) -> None:
    """Punch a hole: blocks go, the size stays."""
    import ctypes

    keep_size, punch_hole = 1, 2
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("r+b", buffering=0) as file:
        if libc.fallocate(
            file.fileno(), keep_size | punch_hole, ctypes.c_long(offset), ctypes.c_long(length_bytes)
        ):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))


def rebuilt(store: BlockStore) -> None:
    """Run maintenance rounds until no segment is left to scan."""
    for _ in range(10_000):
        if not store.status()["index"]["rebuilding"]:
            return
        assert store.maintain()
    raise AssertionError("the rebuild does not end")


def _descriptors() -> list[str]:
    held = []
    for name in os.listdir("/proc/self/fd"):
        try:
            held.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue  # the one that listed
    return sorted(target for target in held if "forebay" in target or "/v1/" in target)


@contextmanager
def nothing_left(folder: CacheFolder) -> Iterator[None]:
    """Check that what runs inside leaves no descriptor, map, lock or stray file once it has closed all."""
    yield
    gc.collect()
    assert [target for target in _descriptors() if str(folder.path) in target] == []
    maps = Path("/proc/self/maps").read_text()
    for place in (folder.path, *(tier.path for tier in folder.tiers)):
        assert str(place) not in maps, f"still mapped: {place}"
    # Only who is alone removes `live` when it closes: had a lock been left, it would still be there.
    strays = [
        path.name
        for home in (folder.home, *(folder.tier_home(n) for n in range(len(folder.tiers))))
        for path in (home.iterdir() if home.is_dir() else ())
        if path.name.partition("-")[0] not in KNOWN_FILES
    ]
    assert strays == [], f"left behind: {strays}"
    if (folder.home / "identity").is_file():
        name = (folder.home / "identity").read_bytes()[:16].hex()
        assert not Path(f"/dev/shm/live-{name}").exists(), "the shared table is left behind"


KNOWN_FILES = {"index", "identity", "tiers", "open.lock", "rows.lock", "tier", "seg", "whole"}
