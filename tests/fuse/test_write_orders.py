"""Random operations on a file of a mount, by calls and by maps, against a copy that is known to be right."""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB
from tests.fuse.conftest import Mounting

SIZE_MAX = 2_500 * KIB
STEPS = 1_500


class Checker:
    """A file and what must be in it."""

    def __init__(self, path: Path, at_source: Path, chance: random.Random) -> None:
        self.path, self.at_source, self.chance = path, at_source, chance
        self.expected = bytearray()
        self.file = os.open(path, os.O_RDWR | os.O_CREAT)

    def step(self) -> None:
        self.chance.choices(
            [
                self.read,
                self.read_map,
                self.write,
                self.write_map,
                self.append,
                self.truncate,
                self.reopen,
                self.sync,
            ],
            [30, 10, 30, 10, 5, 8, 3, 2],
        )[0]()
        assert os.fstat(self.file).st_size == len(self.expected)

    def span(self, size: int) -> tuple[int, int]:
        offset = self.chance.randrange(max(size, 1))
        return offset, min(self.chance.randrange(1, 96 * KIB), max(size - offset, 1))

    def read(self) -> None:
        offset, length = self.span(len(self.expected) + 5_000)
        assert os.pread(self.file, length, offset) == self.expected[offset : offset + length]

    def read_map(self) -> None:
        if self.expected:
            offset, length = self.span(len(self.expected))
            with mmap.mmap(self.file, 0, access=mmap.ACCESS_READ) as mapped:
                assert mapped[offset : offset + length] == self.expected[offset : offset + length]

    def write(self) -> None:
        offset, length = self.span(SIZE_MAX)
        data = self.chance.randbytes(length)
        assert os.pwrite(self.file, data, offset) == length
        self.expected.extend(bytes(max(offset - len(self.expected), 0)))
        self.expected[offset : offset + length] = data

    def write_map(self) -> None:
        if self.expected:
            offset, length = self.span(len(self.expected))
            length = min(length, len(self.expected) - offset)
            data = self.chance.randbytes(length)
            with mmap.mmap(self.file, 0) as mapped:
                mapped[offset : offset + length] = data
            self.expected[offset : offset + length] = data

    def append(self) -> None:
        data = self.chance.randbytes(self.chance.randrange(1, 9_000))
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        os.write(file, data)
        os.close(file)
        self.expected += data

    def truncate(self) -> None:
        size = self.chance.choice([0, self.chance.randrange(SIZE_MAX), len(self.expected) + 1])
        if self.chance.randrange(2):
            os.ftruncate(self.file, size)
        else:
            os.truncate(self.path, size)
        del self.expected[size:]
        self.expected.extend(bytes(size - len(self.expected)))

    def reopen(self) -> None:
        os.close(self.file)
        assert self.at_source.read_bytes() == self.expected
        self.file = os.open(self.path, os.O_RDWR)

    def sync(self) -> None:
        os.fsync(self.file)
        assert self.at_source.read_bytes() == self.expected


@pytest.mark.parametrize("seed", [1, 2])
def test_random_operations(cache: Cache, mounted: Mounting, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    cache.attach("d", folder.as_uri(), writable=True)
    checker = Checker(mounted().path / "file", folder / "file", random.Random(seed))
    for _ in range(STEPS):
        checker.step()
    checker.reopen()
    os.close(checker.file)
