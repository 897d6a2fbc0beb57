"""The recorder of one Cache: it notes what is read through it, in this process and in those that it forks.

Whatever keeps it from writing ends the recording in that process, with one warning; reads go on.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from pathlib import Path
from typing import Final

from forebay.cache.record.part import Access, PartWriter

# The file of a trace's folder that is there while it is to be recorded.
GOING_ON: Final = "recording"
PART_SUFFIX: Final = ".part"

# After so many accesses it looks whether the recording still goes on.
_LOOK_EVERY: Final = 1_024

_log = logging.getLogger(__name__)
_recorders: Final[weakref.WeakSet[Recorder]] = weakref.WeakSet()


class Recorder:
    """Writes a part of the trace in folder for each process that reads. Threads: any."""

    def __init__(self, folder: Path, max_bytes: int, shared_group: int | None) -> None:
        """Record up to max_bytes a process; the file is made with the first access."""
        self._folder: Final = folder
        self._max_bytes: Final = max_bytes
        self._shared_group: Final = shared_group
        self._lock = threading.Lock()
        self._part: PartWriter | None = None
        self._has_ended = False
        self._count = 0
        _recorders.add(self)

    def note(self, path: str, offset: int, length: int, size: int) -> None:
        """Write down that length bytes from offset on were read of the object at path, which has size."""
        with self._lock:
            if self._has_ended:
                return
            if self._count % _LOOK_EVERY == 0 and not (self._folder / GOING_ON).exists():
                self._end()
                return
            self._count += 1
            access = Access(time.clock_gettime_ns(time.CLOCK_BOOTTIME), path, offset, length, size)
            try:
                if self._part is None:
                    self._part = self._begin_part()
                if self._part.write(access):
                    return
                cause = f"the part of this process has reached the limit of {self._max_bytes} bytes"
            except OSError as error:
                cause = error.strerror or type(error).__name__
            self._stop_early(cause)

    def close(self) -> None:
        """End the recording in this process."""
        with self._lock:
            self._end()

    def _begin_part(self) -> PartWriter:
        """Make the file of this process. Raises: OSError."""
        name = f"{time.clock_gettime_ns(time.CLOCK_BOOTTIME):x}-{os.getpid():x}{PART_SUFFIX}"
        mode = 0o600 if self._shared_group is None else 0o660
        part = PartWriter(self._folder / name, mode, self._max_bytes)
        if self._shared_group is not None:
            os.fchown(part.descriptor, -1, self._shared_group)
            os.fchmod(part.descriptor, mode)
        return part

    def _stop_early(self, cause: str) -> None:
        _log.warning("%s: nothing more is recorded by this process: %s", self._folder, cause)
        if self._part is not None:
            self._part.stop_early()
        self._end()

    def _end(self) -> None:
        self._has_ended = True
        part, self._part = self._part, None
        if part is not None:
            part.close()

    def _begin_in_child(self) -> None:
        """Let go of the parent's file, and of a lock that another of its threads may have held."""
        self._lock = threading.Lock()
        part, self._part = self._part, None
        if part is not None:
            part.abandon()


def _begin_in_children() -> None:
    for recorder in list(_recorders):
        recorder._begin_in_child()


os.register_at_fork(after_in_child=_begin_in_children)
