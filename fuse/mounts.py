"""What the kernel says of mounts, from /proc."""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

# As /etc/mtab and mount(8) show it.
SUBTYPE: Final = "forebay"
FILE_SYSTEM: Final = f"fuse.{SUBTYPE}"

_MOUNTS: Final = "/proc/self/mountinfo"
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


class MountPoint(NamedTuple):
    """A place where a file system is mounted, and which; device is the kernel's number of it."""

    path: str
    device: str
    file_system: str
    source: str


def mount_at(path: str) -> MountPoint | None:
    """Return what is mounted at a place, the topmost; None if nothing is.

    The place itself is not touched: a mount whose process died answers nothing.
    """
    parent, name = os.path.split(os.path.abspath(path))
    place = os.path.join(os.path.realpath(parent), name)
    found = None
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            fields, (file_system, source, *_) = before.split(" "), after.split(" ")
            if _plain(fields[4]) == place:
                found = MountPoint(place, fields[2], file_system, _plain(source))
    return found


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
