"""Who serves which mount of a cache directory: a small file for each, kept while its process lives.

    mounts/ID.lock    locked by the process that serves, so that its death is seen from any PID namespace
    mounts/ID.json    what is mounted where, and what was asked of it so far; replaced, never changed

Both are made under names with a dot in front. What a killed process leaves of all these is removed by whoever
reads the folder next.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

_FOLDER: Final = "mounts"
_STEP_S: Final = 1.0


class MountRecord:
    """The record of one mount, in the process that serves it. A context manager. Threads: one."""

    def __init__(self, cache_dir: str, about: Mapping[str, Any]) -> None:
        """Make the record; about says what is mounted where, fit for JSON. Raises: OSError."""
        folder = Path(cache_dir) / _FOLDER
        folder.mkdir(exist_ok=True)
        name = uuid.uuid4().hex
        self._about: Final = dict(about)
        self._path: Final = folder / f"{name}.json"
        self._lock_path: Final = folder / f"{name}.lock"
        self._fresh_path: Final = folder / f".{name}.json"
        self._lock: Final = _locked(folder / f".{name}.lock", self._lock_path)
        try:
            self.write({})
        except BaseException:
            self.close()
            raise

    def write(self, operations: Mapping[str, Any]) -> None:
        """Say what was asked of the mount so far. Raises: OSError."""
        self._fresh_path.write_text(json.dumps({**self._about, "operations": operations}))
        self._fresh_path.rename(self._path)

    def close(self) -> None:
        """Remove the record."""
        for path in (self._fresh_path, self._path, self._lock_path):
            path.unlink(missing_ok=True)
        os.close(self._lock)

    def __enter__(self) -> Self:
        """Return the record itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove it."""
        self.close()


@contextmanager
def reporting(record: MountRecord, operations: Callable[[], Mapping[str, Any]]) -> Iterator[None]:
    """Write once a second what was asked of the mount, where that is more than before."""
    ending = threading.Event()

    def report() -> None:
        written: Mapping[str, Any] = {}
        while not ending.wait(_STEP_S):
            found = operations()
            if found != written:
                # A full disk: it is told of as soon as there is room again.
                with suppress(OSError):
                    record.write(found)
                    written = found

    thread = threading.Thread(target=report, name="forebay-fuse-record", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def live_mounts(cache_dir: str) -> list[dict[str, Any]]:
    """Return the records of the mounts that are served now, by mountpoint; remove those of dead processes."""
    folder, found = Path(cache_dir) / _FOLDER, []
    for lock_path in folder.glob("[!.]*.lock"):
        path = lock_path.with_suffix(".json")
        if _is_locked(lock_path):
            # Ended just now, or not yet written.
            with suppress(FileNotFoundError):
                found.append(json.loads(path.read_text()))
        else:
            path.unlink(missing_ok=True)
            lock_path.unlink(missing_ok=True)
    _remove_begun(folder)
    return sorted(found, key=lambda record: str(record["mountpoint"]))


def _remove_begun(folder: Path) -> None:
    """Remove what processes were killed over before it had its name."""
    for path in folder.glob(".*.json"):
        if not _is_locked(path.with_name(f"{path.stem[1:]}.lock")):
            path.unlink(missing_ok=True)
    for path in folder.glob(".*.lock"):
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            # Held until it is gone: whoever is about to lock it then sees that it went.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)


def _locked(unnamed: Path, named: Path) -> int:
    """Make a file that this process has locked before it has its name; return its descriptor.

    So what can be found is never taken for a dead process's.
    """
    while True:
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            unnamed.rename(named)
        except FileNotFoundError:
            # It was not yet locked, and taken for one that a killed process has left.
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        else:
            return descriptor


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
