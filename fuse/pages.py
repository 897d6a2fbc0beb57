"""Whether pages and attributes that the kernel keeps of a file are those of the version that is opened.

The kernel goes by times and sizes, and two versions may have the same of both. So it may keep its pages over
an open only if they were read from that very version: of files opened lately that is remembered, and as long
as nothing known of a dataset has become different it is so for all.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final, NamedTuple

from forebay.cache import Node, Nodes
from forebay.fuse.attributes import FOR_EVER_S

_VERSIONS_KEPT: Final = 65_536


class Pages(NamedTuple):
    """What holds of a file's pages: whether they may be kept, and whether its attributes are doubtful."""

    may_be_kept: bool
    is_doubtful: bool


class PageKeeper:
    """Follows the versions of files that are opened. Threads: one at a time."""

    def __init__(self, nodes: Nodes) -> None:
        """Follow these from now on: the kernel has nothing yet."""
        self._nodes: Final = nodes
        self._first: Final = nodes.state()
        # When the last file was opened.
        self._last = self._first
        self._changed_s = 0.0
        # inode -> hash of the version whose pages the kernel may have.
        self._versions: Final[OrderedDict[int, int]] = OrderedDict()

    def opened(self, node: Node) -> Pages:
        """Note that a file is opened in the version that its node says."""
        state = self._nodes.state()
        if state != self._last:
            self._last = state
            self._changed_s = time.monotonic()
        if state == self._first and node.valid_s is None:
            return Pages(may_be_kept=True, is_doubtful=False)
        version = hash((node.attached.fixed_label, node.entry.version))
        before = self._versions.pop(node.inode, None)
        self._versions[node.inode] = version
        if len(self._versions) > _VERSIONS_KEPT:
            self._versions.popitem(last=False)
        is_doubtful = state != self._first and time.monotonic() - self._changed_s <= FOR_EVER_S
        return Pages(may_be_kept=before == version, is_doubtful=is_doubtful and before != version)
