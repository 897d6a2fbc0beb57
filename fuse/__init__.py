"""Shows a dataset as a file system of the kernel (FUSE).

It translates kernel requests into calls of ``forebay.cache`` and holds no cache logic of its own, so a mount
and a process that uses the library share blocks, leases and single flight.

What a mount does (operations.py and what it is made of) knows nothing of the program that speaks to the
kernel, and is tested without a mount. pyfuse3 speaks to it, and is touched by session.py and handlers.py
alone; it is imported when a mount is made.
"""

from __future__ import annotations

from forebay.fuse.mount import Mount, serve
from forebay.fuse.options import MountOptions
from forebay.fuse.unmount import unmount

__all__ = ["Mount", "MountOptions", "serve", "unmount"]
