"""100,000 random reads, and writes, of a mount: the same checkers as in tests/fuse, at length."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuse._mount import Mounted
from tests.fuse._random_reads import RandomReads
from tests.fuse._random_writes import RandomWrites
from tests.fuse._small import fill, small_cache

OPERATIONS = 100_000


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["reads", "writes"])
def test_random(kind: str, tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    source = tmp_path / "source"
    source.mkdir()
    with small_cache(tmp_path / "cache", memory_path, monkeypatch) as cache:
        if kind == "reads":
            contents = fill(source)
            cache.attach("d", source.as_uri(), max_age=None, retention="s3fifo")
            with Mounted("d", tmp_path / "mnt") as mount:
                RandomReads(mount.path, contents, seed, lambda name: cache.free(f"d/{name}")).run(OPERATIONS)
            return
        cache.attach("d", source.as_uri(), writable=True, retention="s3fifo")
        with Mounted("d", tmp_path / "mnt") as mount:
            RandomWrites(mount.path, source, seed).run(OPERATIONS)
