"""Who a member is: a UUID that lies in its cache directory and outlives addresses, restarts and machines.

Its invariant: a cache directory has one id for ever, however many processes ask for it first at once, and is
served by one member at a time. What is damaged is never replaced silently: with another id all keys move.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from forebay.cache.locks import try_lock
from forebay.config import FORMAT_FOLDER
from forebay.durable import sync_folder
from forebay.errors import ConfigError
from forebay.peer.member import check_id

_ID_FILE: Final = "member"
_STARTS_FILE: Final = "member-starts"
_FILE_MODE: Final = 0o600
_FILE_BYTES_MAX: Final = 64
_START_MAX: Final = 1 << 62  # what is greater is damaged, and no start


def member_id(cache_directory: str | os.PathLike[str]) -> str:
    """Return the id of the member that a cache directory is, which is given to it when it is first asked for.

    Threads and processes: any. Raises: ConfigError (no cache there, or the file is damaged); OSError.
    """
    folder = Path(cache_directory) / FORMAT_FOLDER
    if not folder.is_dir():
        raise ConfigError(f"{folder.parent}: no cache directory, so no member either")
    path = folder / _ID_FILE
    with suppress(FileNotFoundError):
        return _read_id(path)
    _write_first(path, f"{uuid.uuid4()}\n")
    return _read_id(path)


class MemberLock:
    """The right to serve a cache directory as a member, from now until ``close``. Threads: owner only."""

    def __init__(self, cache_directory: str | os.PathLike[str]) -> None:
        """Become the member of a cache directory.

        Raises: ConfigError (another process serves it, no cache there, or the file is damaged); OSError.
        """
        self.member_id: Final = member_id(cache_directory)
        folder = Path(cache_directory) / FORMAT_FOLDER
        lock = try_lock(os.open(folder / _ID_FILE, os.O_RDWR | os.O_CLOEXEC))
        if lock is None:
            raise ConfigError(f"{cache_directory}: another process serves it already")
        self._lock: Final = lock
        try:
            self.incarnation: Final = _next_start(folder / _STARTS_FILE)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the right up. May be called twice."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _read_id(path: Path) -> str:
    """Read the id. Raises: ConfigError (damaged); OSError."""
    with path.open("rb") as file:
        text = file.read(_FILE_BYTES_MAX)
    try:
        found = text.decode("ascii").removesuffix("\n")
        check_id(found)
    except (UnicodeDecodeError, ConfigError):
        raise ConfigError(
            f"{path}: damaged, it holds {text!r} instead of a member's id. Write the id there that the other "
            "members know this one by, or remove the file: then it joins as a new member and its keys move"
        ) from None
    return found


def _write_first(path: Path, text: str) -> None:
    """Make a file whole, unless somebody else has made it first. Raises: OSError."""
    own = _write_aside(path, text)
    try:
        with suppress(FileExistsError):
            os.link(own, path)
    finally:
        own.unlink()
    sync_folder(path.parent)


def _next_start(path: Path) -> int:
    """Return a number that is greater than at any earlier start. Raises: OSError.

    The clock alone may have gone back, and the file alone may be lost; one of the two is enough.
    """
    last = 0
    with suppress(FileNotFoundError, ValueError):
        last = int(path.read_bytes()[:_FILE_BYTES_MAX])
    now = time.time_ns()
    start = max(last + 1, now) if 0 <= last < _START_MAX else now
    own = _write_aside(path, f"{start}\n")
    own.replace(path)
    sync_folder(path.parent)
    return start


def _write_aside(path: Path, text: str) -> Path:
    """Write a file beside its place, synced, and return it. Raises: OSError."""
    own = path.with_name(f"{path.name}-{uuid.uuid4()}")
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _FILE_MODE)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    except BaseException:
        own.unlink()
        raise
    finally:
        os.close(descriptor)
    return own
