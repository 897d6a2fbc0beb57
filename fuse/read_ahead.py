"""How far the kernel reads ahead of whoever reads a mount's files in order: 128 KiB unless it is told."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from forebay.fuse.mounts import mount_at

_KIB: Final = 1 << 10


def set_read_ahead(mountpoint: str, size_bytes: int) -> None:
    """Have the kernel read so far ahead in all files of a mount.

    Raises: OSError (not permitted, as in most containers; nothing is mounted there).
    """
    found = mount_at(mountpoint)
    if found is None:
        raise OSError(errno.EINVAL, "nothing is mounted here", mountpoint)
    Path(f"/sys/class/bdi/{found.device}/read_ahead_kb").write_text(str(size_bytes // _KIB))
