"""Writes, truncations and reads at random, held to a copy in memory and, once closed, to the source: fsx."""

from __future__ import annotations

import mmap
import os
import random
from pathlib import Path
from typing import Final

_SIZE_MAX: Final = 3_000_000
_LENGTH_MAX: Final = 200_000


class RandomWrites:
    """Writes a few files of one mount at random. source is the folder of the under storage."""

    def __init__(self, folder: Path, source: Path, seed: int, names: tuple[str, ...] = ("a", "b")) -> None:
        self._folder: Final = folder
        self._source: Final = source
        self._random: Final = random.Random(seed)
        self._contents: Final[dict[str, bytearray]] = {name: bytearray() for name in names}
        self._open: Final[dict[str, int]] = {}
        self._acts: Final = [
            *(self._write, self._read, self._write_mapped, self._read_mapped) * 4,
            *(self._truncate, self._append, self._read_by_another) * 2,
            *(self._forget_pages, self._close, self._sync, self._stat),
        ]

    def run(self, operations: int) -> None:
        """Do so many operations, close all and look at what is there. Raises: AssertionError."""
        for name in self._contents:
            (self._folder / name).write_bytes(b"")
        try:
            for _ in range(operations):
                self._random.choice(self._acts)()
        finally:
            while self._open:
                os.close(self._open.popitem()[1])
        for name, data in self._contents.items():
            assert (self._source / name).read_bytes() == data, name
            assert (self._folder / name).read_bytes() == data, name

    def _some(self) -> tuple[str, int, bytearray]:
        name = self._random.choice(sorted(self._contents))
        if name not in self._open:
            self._open[name] = os.open(self._folder / name, os.O_RDWR)
        return name, self._open[name], self._contents[name]

    def _length(self) -> int:
        return self._random.randint(1, self._random.choice((10, 5_000, 70_000, _LENGTH_MAX)))

    def _within(self, data: bytearray) -> tuple[int, int]:
        """Return offset and end of a range that is there, or of none."""
        offset = self._random.randrange(len(data) + 1)
        return offset, min(offset + self._length(), len(data))

    def _check(self, name: str, kind: str, offset: int, found: bytes, expected: bytes | bytearray) -> None:
        if found == expected:
            return
        at = next((n for n, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(found))
        raise AssertionError(
            f"{name} from {offset} by {kind}: {len(found)} bytes for {len(expected)}, the first that differs "
            f"is {offset + at} of {len(self._contents[name])}"
        )

    def _write(self) -> None:
        _, file, data = self._some()
        offset = self._random.randrange(min(len(data) + 50_000, _SIZE_MAX))
        written = self._random.randbytes(self._length())
        assert os.pwrite(file, written, offset) == len(written)
        data.extend(bytes(max(offset - len(data), 0)))
        data[offset : offset + len(written)] = written

    def _append(self) -> None:
        name, _, data = self._some()
        written = self._random.randbytes(self._length())
        if len(data) + len(written) <= _SIZE_MAX:
            with open(self._folder / name, "ab", buffering=0) as file:
                file.write(written)
            data.extend(written)

    def _read(self) -> None:
        name, file, data = self._some()
        offset, end = self._within(data)
        self._check(name, "pread", offset, os.pread(file, end - offset, offset), data[offset:end])

    def _read_by_another(self) -> None:
        name, _, data = self._some()
        offset, end = self._within(data)
        with open(self._folder / name, "rb", buffering=0) as file:
            found = os.pread(file.fileno(), end - offset, offset)
        self._check(name, "another open", offset, found, data[offset:end])

    def _write_mapped(self) -> None:
        _, file, data = self._some()
        offset, end = self._within(data)
        if offset < end:
            with mmap.mmap(file, len(data)) as mapped:
                mapped[offset:end] = data[offset:end] = self._random.randbytes(end - offset)

    def _read_mapped(self) -> None:
        name, file, data = self._some()
        offset, end = self._within(data)
        if offset < end:
            with mmap.mmap(file, len(data), access=mmap.ACCESS_READ) as mapped:
                self._check(name, "mmap", offset, mapped[offset:end], data[offset:end])

    def _truncate(self) -> None:
        name, file, data = self._some()
        size = self._random.randrange(min(len(data) * 2 + 10_000, _SIZE_MAX))
        if self._random.random() < 0.9:
            os.ftruncate(file, size)
        else:
            os.truncate(self._folder / name, size)
        del data[size:]
        data.extend(bytes(size - len(data)))

    def _forget_pages(self) -> None:
        os.posix_fadvise(self._some()[1], 0, 0, os.POSIX_FADV_DONTNEED)

    def _close(self) -> None:
        name, file, data = self._some()
        del self._open[name]
        os.close(file)
        self._check(name, "the source", 0, (self._source / name).read_bytes(), data)

    def _sync(self) -> None:
        name, file, data = self._some()
        os.fsync(file)
        self._check(name, "the source", 0, (self._source / name).read_bytes(), data)

    def _stat(self) -> None:
        name, file, data = self._some()
        assert os.fstat(file).st_size == len(data), name
        assert (self._folder / name).stat().st_size == len(data), name
