"""Whether pages and attributes that the kernel keeps of a file are those of the version that is opened.

The kernel goes by times and sizes, and two versions may have the same of both. So it may keep its pages over
an open only if they were read from that very version: of files read lately that is remembered, and as long
as nothing known of a dataset has become different it is so for all.

Who is told to drop pages has done so by the time that it reads, and not when it is told: another open that
was answered meanwhile, to keep them, would be shown those of the version before. So a version counts as the
one whose pages the kernel has once something was read by a handle that was told to drop the others.

It has one set of pages a file, whoever has it open. So who opens a version while another is open has none of
them: else each would be shown the other's bytes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import Final, NamedTuple

from forebay.cache import Node, Nodes
from forebay.fuse.attributes import FOR_EVER_S

_VERSIONS_KEPT: Final = 65_536


class Pages(NamedTuple):
    """What holds of a file's pages: whether they may be kept, and whether its attributes are doubtful.

    is_apart: it is to be read without them.
    """

    may_be_kept: bool
    is_doubtful: bool
    is_apart: bool = False


_KEPT: Final = Pages(may_be_kept=True, is_doubtful=False)
_DROPPED: Final = Pages(may_be_kept=False, is_doubtful=False)
_APART: Final = Pages(may_be_kept=False, is_doubtful=True, is_apart=True)


class PageKeeper:
    """Follows the versions of files that are opened. Threads: any."""

    def __init__(self, nodes: Nodes) -> None:
        """Follow these from now on: the kernel has nothing yet."""
        self._nodes: Final = nodes
        self._first: Final = nodes.state()
        # Nothing was written here that the kernel has and the under storage has not.
        self._is_unspoilt = True
        # When the last file was opened.
        self._last = self._first
        self._changed_s = 0.0
        # inode -> hash of the version whose pages, and no other's, the kernel may have.
        self._versions: Final[OrderedDict[int, int]] = OrderedDict()
        # Told to drop pages, and not heard of since: inode -> the version that is to be, and by handle.
        self._awaited: Final[dict[int, int]] = {}
        self._unheard: Final[dict[int, int]] = {}
        self._lock: Final = Lock()
        # Of files that are open: handle -> inode and what it shows; inode -> how many show each.
        self._handles: Final[dict[int, tuple[int, int]]] = {}
        self._open: Final[dict[int, dict[int, int]]] = {}

    def opened(self, node: Node, handle: int, shown: int | None = None) -> Pages:
        """Note that a file is opened under a handle in the version that its node says.

        shown: handles of the same number show the same bytes, whatever is written; None: each its version.
        """
        version = _version(node.attached.fixed_label, node.entry.version)
        with self._lock:
            if self._is_apart(node.inode, handle, version if shown is None else shown):
                return _APART
            return self._pages_of(node, handle, version)

    def opened_written(self, inode: int, handle: int, shown: int) -> Pages:
        """Note that a file that is being written is opened: its pages are those of what was written.

        Unless whoever began to write it is not known to have dropped those that were there before.
        """
        with self._lock:
            if self._is_apart(inode, handle, shown):
                return _APART
            return _DROPPED if inode in self._awaited else _KEPT

    def heard_of(self, handle: int) -> None:
        """Note that a file is read or written: the kernel has done what it was told when it was opened."""
        if handle not in self._unheard:
            return
        with self._lock:
            version = self._unheard.pop(handle, None)
            inode, _ = self._handles.get(handle, (0, 0))
            if version is not None and self._awaited.get(inode) == version:
                del self._awaited[inode]
                self._remember(inode, version)

    def written(self, inode: int, label: str, version: str) -> None:
        """Note that the pages of a file are those of a version, for they were written to it."""
        with self._lock:
            self._awaited.pop(inode, None)
            if len(self._open.get(inode, ())) <= 1:
                self._versions[inode] = _version(label, version)

    def spoilt(self, inode: int) -> None:
        """Note that the pages of a file may be those of no version."""
        with self._lock:
            self._is_unspoilt = False
            self._versions.pop(inode, None)
            self._awaited.pop(inode, None)

    def closed(self, handle: int) -> None:
        """Note that a file is closed."""
        with self._lock:
            self._unheard.pop(handle, None)
            inode, version = self._handles.pop(handle, (0, 0))
            versions = self._open.get(inode)
            if versions is None:
                return
            if versions[version] > 1:
                versions[version] -= 1
            elif len(versions) > 1:
                del versions[version]
            else:
                del self._open[inode]
                self._awaited.pop(inode, None)

    def _is_apart(self, inode: int, handle: int, shown: int) -> bool:
        """Note what a handle shows; say whether another shows something else of the same file."""
        self._handles[handle] = (inode, shown)
        kinds = self._open.setdefault(inode, {})
        kinds[shown] = kinds.get(shown, 0) + 1
        if len(kinds) == 1:
            return False
        # Of which the kernel has pages from now on nobody knows.
        self._versions.pop(inode, None)
        self._awaited.pop(inode, None)
        return True

    def _pages_of(self, node: Node, handle: int, version: int) -> Pages:
        is_first = self._is_unspoilt and self._nodes.is_still(self._first)
        if is_first and node.valid_s is None:
            return _KEPT
        if not self._nodes.is_still(self._last):
            self._last = self._nodes.state()
            self._changed_s = time.monotonic()
        is_kept = self._versions.pop(node.inode, None) == version
        if is_kept:
            self._remember(node.inode, version)
        else:
            self._awaited[node.inode] = self._unheard[handle] = version
        is_doubtful = not is_first and time.monotonic() - self._changed_s <= FOR_EVER_S
        return Pages(may_be_kept=is_kept, is_doubtful=is_doubtful and not is_kept)

    def _remember(self, inode: int, version: int) -> None:
        self._versions[inode] = version
        if len(self._versions) > _VERSIONS_KEPT:
            self._versions.popitem(last=False)


def _version(label: str, version: str) -> int:
    return hash((label, version))
