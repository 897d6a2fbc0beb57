"""What is done with a mount while the clock runs, and the check that it shows the bytes of the bucket."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20


def read_in_steps(path: Path, step_bytes: int) -> float:
    """Read a file from front to end; returns MiB per second."""
    buffer = [bytearray(step_bytes)]
    total_bytes, started = 0, time.perf_counter()
    with _opened(str(path)) as file:
        while count := os.readv(file, buffer):
            total_bytes += count
    return total_bytes / MIB / (time.perf_counter() - started)


def read_files(paths: Sequence[str], size_bytes: int) -> int:
    """Open, read and close files of one size; returns their number. Raises: RuntimeError (a short read)."""
    buffer = [bytearray(size_bytes)]
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        count = os.readv(file, buffer)
        os.close(file)
        if count != size_bytes:
            raise RuntimeError(f"{path}: {count} bytes came of {size_bytes}")
    return len(paths)


def stat_files(paths: Sequence[str]) -> int:
    """Ask for the attributes of files; returns their number."""
    for path in paths:
        os.stat(path)
    return len(paths)


def list_long(folder: Path) -> int:
    """Ask for the attributes of each entry as soon as its name is known; returns their number."""
    return sum(stat_files([entry.path]) for entry in os.scandir(folder))


def ls_long(folder: Path) -> int:
    """Run `ls -l`; returns the number of entries that it told of."""
    told = subprocess.run(
        ["ls", "-l", folder], check=True, stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}
    ).stdout
    return told.count(b"\n") - 1  # the first line is the total


def first_read_s(path: str, size_bytes: int) -> float:
    """Open a file, read its first bytes and close it; returns the seconds."""
    buffer = bytearray(size_bytes)
    started = time.perf_counter()
    with _opened(path) as file:
        count = os.readv(file, [buffer])
    seconds = time.perf_counter() - started
    if count != size_bytes:
        raise RuntimeError(f"{path}: {count} bytes came of {size_bytes}")
    return seconds


def rate(count: int, started: float) -> float:
    """Return how many there were a second."""
    return count / (time.perf_counter() - started)


def shuffled(root: Path, keys: Sequence[str], seed: int) -> list[str]:
    """Return the paths of objects below a mount, in a random order."""
    paths = [str(root / key) for key in keys]
    random.Random(seed).shuffle(paths)
    return paths


def check_same(root: Path, objects: Path, keys: Sequence[str]) -> None:
    """Compare what a mount shows with the objects. Raises: RuntimeError (a wrong byte, with the file)."""
    for key in keys:
        if _digest(root / key) != _digest(objects / key):
            raise RuntimeError(f"{root / key}: other bytes than the bucket holds")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@contextmanager
def _opened(path: str) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)
