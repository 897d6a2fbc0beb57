"""A bare pyfuse3 mount: the files of a folder, mapped whole, and as little around them as the kernel needs.

The reference of the mount cases, for what pyfuse3 and the kernel take by themselves: no cache, no versions,
no misses, every answer from a table made before the mount. Attributes and pages stay valid for good; open,
flush and release are answered, as a plain mount answers them. A program: bare_mount.py FOLDER MOUNTPOINT;
SIGTERM ends it.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Node:
    """A directory with the inode numbers of its entries, or a file with its bytes."""

    attributes: pyfuse3.EntryAttributes
    entries: dict[bytes, int]
    data: memoryview


class MapOperations(pyfuse3.Operations):
    """Answers from the table of nodes. A handle is the inode number."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._nodes: dict[int, Node] = {}
        self._add(folder)

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        try:
            return self._nodes[self._nodes[parent_inode].entries[name]].attributes
        except KeyError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._nodes[inode].attributes

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=inode, keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> memoryview:  # type: ignore[override]  # it takes one
        return self._nodes[fh].data[off : off + size]

    async def flush(self, fh: int) -> None:
        return

    async def release(self, fh: int) -> None:
        return

    async def forget(self, inode_list: object) -> None:
        return

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for position, (name, inode) in enumerate(self._nodes[fh].entries.items(), 1):
            if position <= start_id:
                continue
            if not pyfuse3.readdir_reply(token, name, self._nodes[inode].attributes, position):
                return

    def _add(self, path: Path) -> int:
        """Put a file or a tree into the table; returns its inode number."""
        inode = len(self._nodes) + pyfuse3.ROOT_INODE
        if path.is_dir():
            entries: dict[bytes, int] = {}
            self._nodes[inode] = Node(_attributes(inode, path), entries, memoryview(b""))
            for child in sorted(path.iterdir()):
                entries[os.fsencode(child.name)] = self._add(child)
        else:
            self._nodes[inode] = Node(_attributes(inode, path), {}, _mapped(path))
        return inode


def _attributes(inode: int, path: Path) -> pyfuse3.EntryAttributes:
    found = path.stat()
    attributes = pyfuse3.EntryAttributes()
    attributes.st_ino = inode
    attributes.st_mode = (stat.S_IFDIR | 0o555) if path.is_dir() else (stat.S_IFREG | 0o444)
    attributes.st_nlink = 1
    attributes.st_size = found.st_size
    attributes.st_mtime_ns = found.st_mtime_ns
    attributes.attr_timeout = attributes.entry_timeout = TIMEOUT_S
    return attributes


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(
            mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        )


async def _serve() -> None:
    """Answer until SIGTERM or until the kernel unmounts."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def until_told() -> None:
                async for _ in signals:
                    pyfuse3.terminate()

            nursery.start_soon(until_told)
            await pyfuse3.main()
            nursery.cancel_scope.cancel()


def main(folder: str, mountpoint: str) -> None:
    """Mount and serve."""
    operations = MapOperations(Path(folder))
    options = set(pyfuse3.default_options) | {"fsname=bare", "ro"}
    pyfuse3.init(operations, mountpoint, options)
    try:
        trio.run(_serve)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
