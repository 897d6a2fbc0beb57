"""A file system of ``forebay://`` over a folder, for the tests of fsspec and of what reads through it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest

from forebay.api.fsspec import ForebayFileSystem
from forebay.cache import Cache


@dataclass(frozen=True)
class Site:
    """A folder as the datasets ``d``, writable, and ``fixed``, to be read only; options open the cache."""

    folder: Path
    options: dict[str, Any]
    fs: ForebayFileSystem

    @property
    def cache(self) -> Cache:
        return self.fs.cache

    def write(self, name: str, data: bytes) -> str:
        """Put a file into the folder; return its path in ``d``."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_bytes(data)
        return f"d/{name}"


@pytest.fixture
def site(tmp_path: Path, memory_path: Path) -> Iterator[Site]:
    """Attach the folder; closed at the end."""
    folder = tmp_path / "source"
    folder.mkdir()
    options = {
        "cache_dir": str(tmp_path / "cache"),
        "tiers": f"{memory_path}:64MiB:MEM",
        "block_bytes": 1 << 16,
    }
    fs = fsspec.filesystem("forebay", **options)
    fs.cache.attach("d", f"file://{folder}", writable=True)
    fs.cache.attach("fixed", f"file://{folder}", max_age=None)
    yield Site(folder, options, fs)
    fs.clear_instance_cache()
    fs.cache.close()
