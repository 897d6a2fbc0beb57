"""Boot time: the one clock that expiry and freshness are measured with.

Boot time goes on through suspend, is the same in every process of one kernel and takes no part in changes
of the wall clock, so that setting the date expires nothing and revives nothing. It means nothing after a
reboot: what is kept beside such a time is kept under the boot's id as well. Not for measuring short
durations; ``time.monotonic`` is.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, Protocol

NS_PER_S: Final = 1_000_000_000

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What tells the boot time; tests put a manual one in its place (``forebay.testing.ManualClock``)."""

    def boot_ns(self) -> int:
        """Return the nanoseconds since boot; never less than at an earlier call on the same kernel."""
        ...


class BootClock:
    """The kernel's own boot clock."""

    def boot_ns(self) -> int:
        """Return the nanoseconds since boot, suspend included. Threads: any."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return the kernel's id of this boot, a UUID in lower case.

    Raises: OSError (no /proc, or not Linux).
    """
    return _BOOT_ID.read_text(encoding="ascii").strip()
