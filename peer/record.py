"""What the member of a cache directory tells other processes of its host: how its group and its copies are.

    v1/serving.lock    locked by the process that serves, so that its death is seen from any PID namespace
    v1/serving.json    the group as it sees it; replaced once a second where it has changed

A killed process leaves both, and what it wrote is no longer told.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from forebay.config import FORMAT_FOLDER
from forebay.peer.failures import Failures

_log = logging.getLogger(__name__)

_STEP_S: Final = 1.0
_FILE_MODE: Final = 0o600


class ServingRecord:
    """The record of one member, in its process, from now until ``close``. Threads: one."""

    def __init__(self, cache_dir: str, status: Callable[[], Mapping[str, Any]]) -> None:
        """Write what status returns, fit for JSON, now and from now on. Raises: OSError."""
        self._path, lock_path = _files(cache_dir)
        self._status: Final = status
        self._failures: Final = Failures(_log, "the group could not be told to this host; it is in a moment")
        self._written: Mapping[str, Any] = {}
        self._lock: Final = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
        # Only who looks whether it is locked has it for a moment: a directory has one member.
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._write()
        self._ending: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="forebay-record", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Remove the record."""
        self._ending.set()
        self._thread.join()
        self._path.unlink(missing_ok=True)
        os.close(self._lock)

    def _run(self) -> None:
        while not self._ending.wait(_STEP_S):
            try:
                # A full disk: it is told of as soon as there is room again.
                with suppress(OSError):
                    self._write()
            except Exception as error:  # noqa: BLE001  (else what is told would be that of this moment for good)
                self._failures.tell(error)

    def _write(self) -> None:
        found = self._status()
        if found != self._written:
            fresh = self._path.with_suffix(".new")
            fresh.write_text(json.dumps(found))
            fresh.rename(self._path)
            self._written = found


def serving_status(cache_dir: str) -> dict[str, Any] | None:
    """Return what the member of a cache directory wrote last, None where none serves it. Raises: OSError."""
    path, lock_path = _files(cache_dir)
    try:
        with lock_path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        pass
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None  # not written yet, or ended just now
    return found


def _files(cache_dir: str) -> tuple[Path, Path]:
    folder = Path(cache_dir, FORMAT_FOLDER)
    return folder / "serving.json", folder / "serving.lock"
