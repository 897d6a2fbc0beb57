"""Directories that only a mount knows of: made where the under storage keeps none, or emptied.

An object store has a directory as long as there is an object below it. Whoever makes one, or removes the last
file of one, finds it there all the same, as in any file system, until it is removed or the mount ends.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import Final

_COUNT_MAX: Final = 65_536


class Folders:
    """Directories by path, each with the number it is known by. Threads: any."""

    def __init__(self, count_max: int = _COUNT_MAX) -> None:
        """Keep so many; those that were added first give way."""
        self._count_max: Final = count_max
        self._lock: Final = Lock()
        self._inodes: Final[OrderedDict[str, int]] = OrderedDict()
        self._names: Final[dict[str, set[str]]] = {}
        self.mtime_ns: Final = time.time_ns()

    def __bool__(self) -> bool:
        """Say whether there are any."""
        return bool(self._inodes)

    def get(self, path: str) -> int | None:
        """Return the number of a directory; None: it is none of these."""
        return self._inodes.get(path)

    def add(self, path: str, inode: int) -> None:
        """Keep a directory."""
        directory, _, name = path.rpartition("/")
        with self._lock:
            self._inodes[path] = inode
            self._names.setdefault(directory, set()).add(name)
            if len(self._inodes) > self._count_max:
                self._drop(next(iter(self._inodes)))

    def remove(self, path: str) -> bool:
        """Keep a directory no more; return whether it was one of these."""
        with self._lock:
            return self._drop(path)

    def inside(self, directory: str) -> list[str]:
        """Return the paths of those that lie directly in a directory."""
        begin = f"{directory}/" if directory else ""
        with self._lock:
            return [f"{begin}{name}" for name in sorted(self._names.get(directory, ()))]

    def move(self, path: str, target: str) -> None:
        """Give a directory, and those below it, another path."""
        with self._lock:
            moved = [
                (each, inode)
                for each, inode in self._inodes.items()
                if each == path or each.startswith(f"{path}/")
            ]
            for each, _ in moved:
                self._drop(each)
        for each, inode in moved:
            self.add(f"{target}{each[len(path) :]}", inode)

    def _drop(self, path: str) -> bool:
        directory, _, name = path.rpartition("/")
        if self._inodes.pop(path, None) is None:
            return False
        names = self._names[directory]
        names.discard(name)
        if not names:
            del self._names[directory]
        return True
