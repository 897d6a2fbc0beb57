"""One process's part of a trace: a file of accesses that is right up to wherever its writer was killed.

```
header   64 bytes: magic, whether the writer stopped early, bytes a chunk
chunks   1 MiB each, the first with the header in it; records one behind the other, none across a boundary
record   CRC of all behind it, bytes of the path (or a mark), time, offset, length, size: 40 bytes; the path;
         nothing up to a multiple of 8
```

The writer maps the chunk that it is in, which was allocated before, so an access costs no system call and is
in the page cache at once. What counts a record is the length of its path, which is written last; a zero there
is the end. What does not pass its CRC, after a crash of the machine, ends the reading as well.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

CHUNK_BYTES: Final = 1 << 20

_HEADER: Final = struct.Struct("<8sII")
_HEADER_BYTES: Final = 64
_MAGIC: Final = b"fbtrace1"
_STOPPED: Final = struct.Struct("<I")
_STOPPED_AT: Final = 8
# The word that publishes a record, and what stands behind it.
_MARK: Final = struct.Struct("<II")
_FIGURES: Final = struct.Struct("<QQQQ")
_RECORD_BYTES: Final = _MARK.size + _FIGURES.size
# In the place of the length of a path: the rest of the chunk is empty, go on with the next.
_NEXT_CHUNK: Final = 0xFFFFFFFF


class Access(NamedTuple):
    """length bytes from offset on of the object at path, which has size bytes, read at this boot time."""

    time_ns: int
    path: str
    offset: int
    length: int
    size: int


class PartWriter:
    """Writes one part. For one thread at a time, in the process that made it."""

    def __init__(self, path: Path, mode: int, max_bytes: int) -> None:
        """Make the file, which is not there yet, for max_bytes at most. Raises: OSError."""
        self._descriptor: Final = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        self._max_bytes: Final = max_bytes
        self._chunk_offset = 0
        self._position = _HEADER_BYTES
        try:
            self._map = self._map_chunk()
            _HEADER.pack_into(self._map, 0, _MAGIC, 0, CHUNK_BYTES)
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def descriptor(self) -> int:
        """The file."""
        return self._descriptor

    def write(self, access: Access) -> bool:
        """Write an access behind the others; return False where max_bytes leave no room for it.

        Raises: OSError (the disk is full).
        """
        path = access.path.encode("utf-8", "surrogateescape")
        behind = self._position + _RECORD_BYTES + len(path)
        if behind + _MARK.size > CHUNK_BYTES:
            if self._chunk_offset + 2 * CHUNK_BYTES > self._max_bytes:
                return False
            self._begin_chunk()
            behind = self._position + _RECORD_BYTES + len(path)
        start, chunk = self._position, self._map
        _FIGURES.pack_into(
            chunk, start + _MARK.size, access.time_ns, access.offset, access.length, access.size
        )
        chunk[start + _RECORD_BYTES : behind] = path
        _MARK.pack_into(chunk, start, zlib.crc32(chunk[start + _MARK.size : behind]), len(path))
        self._position = behind + -behind % 8
        return True

    def stop_early(self) -> None:
        """Note that there was more than is written here."""
        os.pwrite(self._descriptor, _STOPPED.pack(1), _STOPPED_AT)

    def close(self) -> None:
        """Give back what was allocated and not used."""
        self._map.close()
        os.ftruncate(self._descriptor, self._chunk_offset + self._position)
        os.close(self._descriptor)

    def abandon(self) -> None:
        """Let go of a file that another process goes on with: what a fork does to the child."""
        self._map.close()
        os.close(self._descriptor)

    def _begin_chunk(self) -> None:
        self._chunk_offset += CHUNK_BYTES
        try:
            following = self._map_chunk()
        except BaseException:
            self._chunk_offset -= CHUNK_BYTES
            raise
        _MARK.pack_into(self._map, self._position, 0, _NEXT_CHUNK)
        self._map.close()
        self._map, self._position = following, 0

    def _map_chunk(self) -> mmap.mmap:
        # Allocated and not only extended: a store into a hole of a full disk would be a SIGBUS.
        os.posix_fallocate(self._descriptor, self._chunk_offset, CHUNK_BYTES)
        return mmap.mmap(self._descriptor, CHUNK_BYTES, offset=self._chunk_offset)


def is_whole(path: Path) -> bool:
    """Say whether a part has all that its process read: its writer did not have to stop early.

    Raises: OSError; ValueError (it is no part of a trace).
    """
    with open(path, "rb") as file:
        return _has_stopped(path, file.read(_HEADER_BYTES)) is False


def read_part(path: Path) -> Iterator[Access]:
    """Yield the accesses of a part, by time, up to its end or to the first that is damaged.

    Raises, while it is iterated: OSError; ValueError (it is no part of a trace).
    """
    with open(path, "rb") as file:
        chunk = file.read(CHUNK_BYTES)
        _has_stopped(path, chunk[:_HEADER_BYTES])
        position = _HEADER_BYTES
        while position + _MARK.size <= len(chunk):
            crc, path_bytes = _MARK.unpack_from(chunk, position)
            if path_bytes == _NEXT_CHUNK:
                chunk, position = file.read(CHUNK_BYTES), 0
                continue
            behind = position + _RECORD_BYTES + path_bytes
            if not path_bytes or zlib.crc32(chunk[position + _MARK.size : behind]) != crc:
                return
            figures = _FIGURES.unpack_from(chunk, position + _MARK.size)
            name = chunk[position + _RECORD_BYTES : behind].decode("utf-8", "surrogateescape")
            yield Access(figures[0], name, *figures[1:])
            position = behind + -behind % 8


def _has_stopped(path: Path, data: bytes) -> bool | None:
    """Return what the header says of the writer's end; None: it did not even begin. Raises: ValueError."""
    if not any(data):
        return None
    if len(data) >= _HEADER_BYTES:
        magic, has_stopped, chunk_bytes = _HEADER.unpack_from(data)
        if magic == _MAGIC and chunk_bytes == CHUNK_BYTES:
            return bool(has_stopped)
    raise ValueError(f"{path}: is no part of a trace")
