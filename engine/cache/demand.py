"""Whether some process of the host waits for the under storage right now: loads ask, and stand back.

One shared word, the boot time at which a reader's fetch last began, moved on or ended. It is a hint: a word
that is lost or torn makes a load a little too polite or too quick, and nothing else.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from typing import Final

FILE_NAME: Final = "demand"

_WORD: Final = struct.Struct("<Q")
_FILE_BYTES: Final = mmap.PAGESIZE
_FILE_MODE: Final = 0o600
_SHARED_FILE_MODE: Final = 0o660
# A fetch marks the word at every piece that comes in; between two pieces it may be silent for so long.
_ACTIVE_NS: Final = 20_000_000


class Demand:
    """The host's word. Threads: any; it goes over a fork as it is."""

    def __init__(self, folder: str, *, shared_group: int | None = None, read_only: bool = False) -> None:
        """Map the word's file in the folder, making it; a read-only cache only looks at its own demand.

        Raises: OSError.
        """
        if read_only:
            self._map = mmap.mmap(-1, _FILE_BYTES)
            return
        mode = _FILE_MODE if shared_group is None else _SHARED_FILE_MODE
        descriptor = os.open(os.path.join(folder, FILE_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            if os.fstat(descriptor).st_size < _FILE_BYTES:
                # Allocated and not only extended: a store into a hole of a full disk would be a SIGBUS.
                os.posix_fallocate(descriptor, 0, _FILE_BYTES)
                if shared_group is not None:
                    os.fchown(descriptor, -1, shared_group)
                    os.fchmod(descriptor, mode)
            self._map = mmap.mmap(descriptor, _FILE_BYTES)
        finally:
            os.close(descriptor)

    def mark(self) -> None:
        """Say that a reader's fetch begins, moves on or ends."""
        _WORD.pack_into(self._map, 0, _now_ns())

    def is_active(self) -> bool:
        """Say whether any process marked the word within the last moments."""
        age_ns = _now_ns() - int(_WORD.unpack_from(self._map)[0])
        # A mark in the future was made in another boot, by a clock that began anew.
        return 0 <= age_ns < _ACTIVE_NS


def _now_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
