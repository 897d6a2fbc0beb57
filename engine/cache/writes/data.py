"""What a user gives to be written: bytes in memory, or a local file."""

from __future__ import annotations

import errno
import os
import stat
from typing import Any, Final

from forebay.cache.datasets import Attached
from forebay.cache.writes.write import Writes
from forebay.config import MIB
from forebay.meta import Entry
from forebay.ufs.payload import BytesPayload, FilePayload

_STEP_BYTES: Final = 4 * MIB


def put_data(writes: Writes, attached: Attached, path: str, data: Any, *, exclusive: bool) -> Entry:
    """Write an object. Raises: as Writes.put; TypeError; OSError of the local file."""
    writes.writer(attached, path)
    if isinstance(data, os.PathLike):
        return _put_file(writes, attached, path, os.fspath(data), exclusive=exclusive)
    return writes.put(attached, path, _bytes_payload(attached, data), exclusive=exclusive)


def _bytes_payload(attached: Attached, data: Any) -> BytesPayload:
    if isinstance(data, bytes):
        return BytesPayload(data)
    try:
        view = memoryview(data).cast("B")
    except TypeError as error:
        kind = type(data).__name__
        words = f"{kind}: what is written is a contiguous buffer of bytes, or the pathlib.Path of a file"
        raise TypeError(words) from error
    # What is cached is read once more than what is only sent: by then it must be the same.
    return BytesPayload(bytes(view) if attached.record.write_mode == "cache_through" else view)


def _put_file(writes: Writes, attached: Attached, path: str, name: str, *, exclusive: bool) -> Entry:
    # Without waiting for whoever may write to a FIFO.
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0):
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        payload = FilePayload(descriptor, name)
        if attached.record.write_mode == "cache_through":
            return _put_copy(writes, attached, path, payload, exclusive=exclusive)
        return writes.put(attached, path, payload, exclusive=exclusive)


def _put_copy(
    writes: Writes, attached: Attached, path: str, payload: FilePayload, *, exclusive: bool
) -> Entry:
    """Write a staged copy, which nobody changes between sending and caching it."""
    staged = writes.stage(attached, path)
    try:
        for offset in range(0, payload.size, _STEP_BYTES):
            data = payload.read(offset, min(_STEP_BYTES, payload.size - offset))
            staged.file.write(offset, memoryview(data))
        payload.check()
        copy = staged.file.finish(payload.size)
        return writes.put(attached, path, copy, exclusive=exclusive, ticket=staged.ticket)
    finally:
        writes.unstage(staged)
