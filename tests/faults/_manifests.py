"""A folder of files in two versions, a cache over it, and what must hold of its manifests at any moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier

FILES = 40
Tree = dict[str, bytes]


def tree_of(version: str, *own: str) -> Tree:
    """Return files, some of its own among them, whose bytes say which version they are of."""
    names = [f"dir{number % 4}/f{number}" for number in range(FILES)] + list(own)
    return {name: f"{version}:{name}".encode() * (1 + number % 3) for number, name in enumerate(names)}


@dataclass(frozen=True)
class Site:
    """Where the files and the cache lie."""

    folder: Path
    tier: Path

    @property
    def manifests(self) -> Path:
        """The folder of the manifests' files."""
        return self.folder / "cache/v1/meta/manifests"

    def open(self) -> Cache:
        """Open the cache, with the folder attached as ``d`` at the first time."""
        (self.folder / "data").mkdir(exist_ok=True)
        cache = Cache(self.folder / "cache", [Tier(str(self.tier), 64 * MIB, "MEM")], block_bytes=64 * KIB)
        if not cache.datasets():
            cache.attach("d", (self.folder / "data").as_uri(), max_age=None, manifest_only=True)
        return cache

    def write(self, tree: Mapping[str, bytes]) -> None:
        """Let the folder hold these files and no others."""
        root = self.folder / "data"
        for path in [path for path in root.rglob("*") if path.is_file()]:
            if str(path.relative_to(root)) not in tree:
                path.unlink()
        for name, data in tree.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)

    def files(self) -> list[str]:
        """List the files of manifests, finished or not."""
        return sorted(path.name for path in self.manifests.rglob("*") if path.is_file())


def everything(cache: Cache, label: str) -> Tree:
    """Return all that is shown of a dataset or a version, by one walk and one read of many."""
    paths = [f"{directory}/{name}" for directory, _, names in cache.walk(label) for name in names]
    views = cache.read_many(paths)
    return {path.partition("/")[2]: bytes(view) for path, view in zip(paths, views, strict=True)}
