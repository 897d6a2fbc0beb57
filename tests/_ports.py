"""Ports for servers that are to be found again where they were, or that are told to others beforehand.

Whoever asks for any port, and each connection, gets one of the kernel's range: one of those may be taken by
another test at any moment in which nobody listens at it.
"""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_000
_TRIES = 1_000


def port_of_ones_own(host: str = "127.0.0.1") -> int:
    """Return a port that is free at a host of this machine, and that the kernel gives to nobody."""
    first, last = map(int, _RANGE.read_text().split())
    ranges = (range(_LOWEST, first), range(last + 1, 65_536))
    # Not by the numbers of the tests, of which several processes may have the same.
    chance = random.SystemRandom()
    for _ in range(_TRIES):
        port = chance.choice(max(ranges, key=len))
        with suppress(OSError), socket.create_server((host, port)):
            return port
    raise AssertionError(f"no port is free at {host}")
