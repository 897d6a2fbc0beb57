"""Who serves which mount of a cache directory: a small file for each, kept while its process lives.

    mounts/ID.lock    locked by the process that serves, so that its death is seen from any PID namespace
    mounts/ID.json    what is mounted where, and what was asked of it so far; replaced, never changed

A killed process leaves both; whoever reads the folder next removes them.
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
        # Locked before it has its name: what can be found is never taken for a dead process's.
        unnamed = folder / f".{name}.lock"
        self._lock: Final = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unnamed.rename(self._lock_path)
        self.write({})

    def write(self, operations: Mapping[str, Any]) -> None:
        """Say what was asked of the mount so far. Raises: OSError."""
        fresh = self._path.with_name(f".{self._path.name}")
        fresh.write_text(json.dumps({**self._about, "operations": operations}))
        fresh.rename(self._path)

    def close(self) -> None:
        """Remove the record."""
        self._path.unlink(missing_ok=True)
        self._lock_path.unlink(missing_ok=True)
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
    found = []
    for lock_path in (Path(cache_dir) / _FOLDER).glob("[!.]*.lock"):
        path = lock_path.with_suffix(".json")
        if _is_locked(lock_path):
            # Ended just now, or not yet written.
            with suppress(FileNotFoundError):
                found.append(json.loads(path.read_text()))
        else:
            path.unlink(missing_ok=True)
            lock_path.unlink(missing_ok=True)
    return sorted(found, key=lambda record: str(record["mountpoint"]))


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
