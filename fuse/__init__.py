"""The layer that will show datasets as a file system.

It translates kernel requests into calls of ``forebay.cache`` and holds no cache logic of its own, so a mount
and a process that uses the library share blocks, leases and single flight.
"""

from __future__ import annotations

__all__: list[str] = []
