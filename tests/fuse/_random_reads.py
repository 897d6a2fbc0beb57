"""Reads of every kind at random, each held to a reference copy: fsx, for reads."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

_PAGE_BYTES: Final = mmap.PAGESIZE
_LENGTH_MAX: Final = 400_000
_OPEN_MAX: Final = 12


class _Open:
    """A file that is open in every way in which it is read."""

    def __init__(self, folder: Path, name: str, data: bytes) -> None:
        path = folder / name
        self.name = name
        self.data = data
        self.file = os.open(path, os.O_RDONLY)
        self.direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self.map = mmap.mmap(self.file, 0, access=mmap.ACCESS_READ) if data else None

    def close(self) -> None:
        if self.map is not None:
            self.map.close()
        os.close(self.file)
        os.close(self.direct)


class RandomReads:
    """Reads the files below a folder at random; beside is done now and then between two reads.

    contents are the files' bytes by their path; the random numbers follow from the seed alone.
    """

    def __init__(
        self, folder: Path, contents: Mapping[str, bytes], seed: int, beside: Callable[[str], object]
    ) -> None:
        self._folder: Final = folder
        self._contents: Final = contents
        self._names: Final = sorted(contents)
        self._random: Final = random.Random(seed)
        self._beside: Final = beside
        self._open: Final[dict[str, _Open]] = {}
        self._buffer: Final = mmap.mmap(-1, _LENGTH_MAX + 2 * _PAGE_BYTES)
        self._acts: Final = [
            *(self._pread, self._read, self._readv, self._direct, self._mapped) * 6,
            *(self._forget_pages, self._reopen, self._stat, self._do_beside),
        ]

    def run(self, operations: int) -> None:
        """Do so many operations. Raises: AssertionError (names file, place and kind)."""
        try:
            for _ in range(operations):
                self._random.choice(self._acts)()
        finally:
            while self._open:
                self._open.popitem()[1].close()

    def _some(self) -> _Open:
        name = self._random.choice(self._names)
        found = self._open.get(name)
        if found is None:
            if len(self._open) >= _OPEN_MAX:
                self._open.pop(self._random.choice(sorted(self._open))).close()
            found = self._open[name] = _Open(self._folder, name, self._contents[name])
        return found

    def _place(self, size: int) -> tuple[int, int]:
        """Return an offset, now and then behind the end, and a length."""
        offset = self._random.randrange(size + 2) if self._random.random() < 0.95 else size + 100_000
        longest = self._random.choice((1, 100, _PAGE_BYTES, 70_000, _LENGTH_MAX))
        return offset, self._random.randint(1, longest)

    def _check(self, opened: _Open, kind: str, offset: int, length: int, found: bytes) -> None:
        expected = opened.data[offset : offset + length]
        if found == expected:
            return
        at = next((n for n, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), len(found))
        raise AssertionError(
            f"{opened.name}[{offset}:{offset + length}] by {kind}: {len(found)} bytes for {len(expected)}, "
            f"the first that differs is {offset + at} of {len(opened.data)}"
        )

    def _pread(self) -> None:
        opened = self._some()
        offset, length = self._place(len(opened.data))
        self._check(opened, "pread", offset, length, os.pread(opened.file, length, offset))

    def _read(self) -> None:
        opened = self._some()
        offset, length = self._place(len(opened.data))
        os.lseek(opened.file, offset, os.SEEK_SET)
        self._check(opened, "read", offset, length, os.read(opened.file, length))

    def _readv(self) -> None:
        opened = self._some()
        offset, length = self._place(len(opened.data))
        first = length // 3
        buffers = [bytearray(first), bytearray(length - first)]
        count = os.preadv(opened.file, buffers, offset)
        self._check(opened, "preadv", offset, length, b"".join(buffers)[:count])

    def _direct(self) -> None:
        opened = self._some()
        offset, length = (part // _PAGE_BYTES * _PAGE_BYTES for part in self._place(len(opened.data)))
        length += _PAGE_BYTES
        with memoryview(self._buffer)[:length] as buffer:
            count = os.preadv(opened.direct, [buffer], offset)
            self._check(opened, "O_DIRECT", offset, length, bytes(buffer[:count]))

    def _mapped(self) -> None:
        opened = self._some()
        if opened.map is not None:
            offset, length = self._place(len(opened.data))
            self._check(opened, "mmap", offset, length, opened.map[offset : offset + length])

    def _forget_pages(self) -> None:
        """Have the kernel drop what it has of a file, so that the mount is asked again."""
        os.posix_fadvise(self._some().file, 0, 0, os.POSIX_FADV_DONTNEED)

    def _reopen(self) -> None:
        self._open.pop(self._some().name).close()

    def _stat(self) -> None:
        opened = self._some()
        assert os.fstat(opened.file).st_size == len(opened.data), opened.name

    def _do_beside(self) -> None:
        self._beside(self._random.choice(self._names))
