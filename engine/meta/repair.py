"""What is done about damaged LMDB files before they are mapped, and how damage is told from other errors.

LMDB looks at its two meta pages and believes the rest: a page behind the end of a truncated file would be a
SIGBUS. Filled up with zeros, the file gives an error instead, for no page of LMDB's is all zeros.
Source: MDB_meta and MDB_page in LMDB's mdb.c (data version 1).
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import lmdb

_log = logging.getLogger(__name__)

# magic, version, address, map size, [free list: page size, 44 bytes], [tree: 48 bytes], last page, commit
_META: Final = struct.Struct("<IIQQI44x48xQQ")
_META_AT: Final = 16
_MAGIC: Final = 0xBEEFC0DE
_VERSION: Final = 1
_PAGE_BYTES: Final = (4_096, 8_192, 16_384, 32_768)

_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)


def is_damage(error: BaseException) -> bool:
    """Say whether LMDB's error is about what is in the file."""
    return isinstance(error, _DAMAGE)


def fill_up(path: str | os.PathLike[str]) -> None:
    """Make a truncated file as long as its meta pages say; other files are left alone, and it if missing.

    Processes that write it meanwhile are no trouble: nothing that exists is touched. Raises: OSError.
    """
    with suppress(FileNotFoundError), _opened(path, os.O_RDWR) as descriptor:
        length = _length_told(descriptor)
        if length is not None and os.fstat(descriptor).st_size < length:
            # Not a truncation to that length, which would cut off what others add at this moment.
            os.posix_fallocate(descriptor, 0, length)


def is_truncated(path: str | os.PathLike[str]) -> bool:
    """Say whether a file is shorter than its meta pages say. Raises: OSError."""
    with _opened(path, os.O_RDONLY) as descriptor:
        length = _length_told(descriptor)
        return length is not None and os.fstat(descriptor).st_size < length


def remove_unreadable(path: str | os.PathLike[str]) -> None:
    """Remove a file that LMDB could not open, if it is there. Raises: OSError."""
    with suppress(FileNotFoundError), _opened(path, os.O_RDWR) as descriptor:
        if _length_told(descriptor) is None:
            # Of two that come here at once one removes it, and the other does not remove the first one's new.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            remove_same(path, os.fstat(descriptor))


def remove_same(path: str | os.PathLike[str], status: os.stat_result) -> None:
    """Remove the file that has this status, unless another has its name by now. Raises: OSError."""
    with suppress(FileNotFoundError):
        if os.path.samestat(status, os.stat(path)):
            os.unlink(path)
            _log.warning("%s: damaged, removed; what was known is asked again", os.fspath(path))


@contextmanager
def _opened(path: str | os.PathLike[str], flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _length_told(descriptor: int) -> int | None:
    """Return how long the file has to be by its newer meta page; None if it has not two, as LMDB asks for."""
    first = _read_meta(descriptor, 0)
    second = None if first is None else _read_meta(descriptor, first[0])
    if first is None or second is None:
        return None
    page_bytes, last_page, _ = max(first, second, key=lambda meta: meta[2])
    return page_bytes * (last_page + 1)


def _read_meta(descriptor: int, position: int) -> tuple[int, int, int] | None:
    """Return page size, last page and commit number of the meta page at a position; None if it is none."""
    data = os.pread(descriptor, _META.size, position + _META_AT)
    if len(data) < _META.size:
        return None
    magic, version, _, map_bytes, page_bytes, last_page, commit = _META.unpack(data)
    if (magic, version) != (_MAGIC, _VERSION) or page_bytes not in _PAGE_BYTES:
        return None
    # A length beyond the map is no length; writing zeros up to there would fill the disk.
    return (page_bytes, last_page, commit) if page_bytes * (last_page + 1) <= map_bytes else None
