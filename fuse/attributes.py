"""What a node looks like to the kernel, and for how long the kernel may believe it."""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

from forebay.cache import Node
from forebay.fuse.options import MountOptions

# For what never changes. A version that is put in use, or known to be new, is told to the kernel.
FOR_EVER_S: Final = 3_600.0
# For what other mounts of this host may change meanwhile. An open looks anew, whatever the kernel believes.
SHARED_S: Final = 1.0

_READ_BITS: Final = 0o555
_ALL_BITS: Final = 0o777
_SECTOR_BYTES: Final = 512


class Attributes(NamedTuple):
    """The attributes of one inode; timeout_s is for its name as well as for these."""

    inode: int
    mode: int
    nlink: int
    size: int
    mtime_ns: int
    timeout_s: float


class Appearance:
    """Makes attributes by the options of a mount."""

    def __init__(self, options: MountOptions, *, read_only: bool, timeout_s_max: float = FOR_EVER_S) -> None:
        """Take who owns everything, which permission bits there are, and how long the kernel believes it."""
        bits = _READ_BITS if read_only else _ALL_BITS
        self.timeout_s_max: Final = timeout_s_max
        self.uid: Final = os.getuid() if options.uid is None else options.uid
        self.gid: Final = os.getgid() if options.gid is None else options.gid
        self.file_mode: Final = stat.S_IFREG | bits & ~options.fmask
        self.directory_mode: Final = stat.S_IFDIR | bits & ~options.dmask

    def timeout_of(self, valid_s: float | None) -> float:
        """Return how long the kernel may keep what holds for so long, None for ever."""
        return self.timeout_s_max if valid_s is None else min(valid_s, self.timeout_s_max)

    def of(self, node: Node) -> Attributes:
        """Return the attributes of a node."""
        _, entry, _, valid_s = node
        return self.described(
            node.inode, entry.size, entry.mtime_ns, self.timeout_of(valid_s), is_dir=entry.is_dir
        )

    def described(
        self, inode: int, size: int, mtime_ns: int, timeout_s: float, *, is_dir: bool
    ) -> Attributes:
        """Return the attributes of what is described so."""
        if is_dir:
            return Attributes(inode, self.directory_mode, 2, 0, mtime_ns, timeout_s)
        return Attributes(inode, self.file_mode, 1, size, mtime_ns, timeout_s)


def blocks_of(size: int) -> int:
    """Return a size in units of 512 bytes."""
    return -(-size // _SECTOR_BYTES)
