"""Mapped memory with an address, for the C loops: what a segment is to the store."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def shared_region(path: Path, size_bytes: int) -> Iterator[int]:
    """Map a new file of that size, shared and with every page touched; gives its address."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(file, 0, size_bytes)
        with mmap.mmap(file, size_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE) as region:
            handle = ctypes.c_char.from_buffer(region)
            try:
                yield ctypes.addressof(handle)
            finally:
                del handle  # an mmap with an exported pointer cannot be closed
    finally:
        os.close(file)
        path.unlink()


def address_of(buffer: bytearray) -> int:
    """Return where the bytes lie; the caller keeps the buffer alive and does not resize it."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
