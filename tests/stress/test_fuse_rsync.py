"""rsync of 100,000 files from a mount, and of 10,000 to one, and a comparison of every byte by checksums."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from forebay.config import KIB
from tests.fuse._mount import Mounted
from tests.fuse._small import small_cache

FILES_READ = 100_000
FILES_WRITTEN = 10_000
FILES_IN_A_FOLDER = 1_000
# Many a size, most of them small; now and then more than a block.
SIZES = (0, 1, 100, 1_000, 4 * KIB, 4 * KIB + 1)
LARGE = 70 * KIB


def grow(folder: Path, count: int, seed: int) -> None:
    """Make the files; the bytes follow from the seed alone."""
    chance = random.Random(seed)
    for number in range(count):
        path = folder / f"{number // FILES_IN_A_FOLDER:03}" / f"{number:06}"
        if number % FILES_IN_A_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(chance.randbytes(LARGE if number % 100 == 7 else chance.choice(SIZES)))


def rsync(*words: str | Path) -> list[str]:
    """Return what it says of each file that it takes for different."""
    done = subprocess.run(["rsync", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line[1:2] == "f"]


def differing(folder: Path, other: Path) -> list[str]:
    return rsync(
        "--recursive", "--checksum", "--dry-run", "--delete", "--itemize-changes", f"{folder}/", other
    )


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("kind", "count"), [("reads", FILES_READ), ("writes", FILES_WRITTEN)])
def test_rsync(
    kind: str, count: int, tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache is much smaller than what goes through it."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    tree, source = tmp_path / "tree", tmp_path / "source"
    grow(tree, count, seed)
    with small_cache(tmp_path / "cache", memory_path, monkeypatch) as cache:
        if kind == "reads":
            cache.attach("d", tree.as_uri(), max_age=None, retention="s3fifo")
            with Mounted("d", tmp_path / "mnt") as mount:
                assert differing(tree, mount.path) == differing(mount.path, tree) == []
                copied = rsync("--archive", "--itemize-changes", f"{mount.path}/", tmp_path / "copy")
            assert len(copied) == count
            assert differing(tree, tmp_path / "copy") == []
        else:
            source.mkdir()
            cache.attach("d", source.as_uri(), writable=True, retention="s3fifo")
            with Mounted("d", tmp_path / "mnt") as mount:
                copied = rsync("--archive", "--itemize-changes", f"{tree}/", mount.path)
                assert len(copied) == count
                assert differing(tree, mount.path) == differing(mount.path, tree) == []
            assert differing(tree, source) == []
        assert cache.check().ok
    assert sum(len(names) for _, _, names in os.walk(tree)) == count
