"""The files that are open on a mount that is written to: all handles of one share what was written.

A file has a draft from the first handle on that may change it, and until its last handle is closed, so that
whoever has it open sees every change at once. A draft that was committed gives way when the file is opened
anew after another has changed it; who has it open goes on with it. So does a version that is only read.

The kernel has one size a file, and shows zeros up to it where it is given less. So what gave way to a longer
one ends with an error and not with its end.
"""

from __future__ import annotations

import errno
import logging
import os
from threading import Lock
from typing import Final
from weakref import WeakSet

from forebay.cache import Draft, Node, NodeFile, Nodes, NodeWriter
from forebay.errors import Stale

_log = logging.getLogger(__name__)


class OpenInode:
    """A file that is open, by however many handles."""

    def __init__(self, inode: int, node: Node | None) -> None:
        """Begin without handles; node is what was found when it was opened, None for a new file."""
        self.inode: Final = inode
        self.node = node
        self.draft: Draft | None = None
        self.handles = 0
        # What its last commit has failed with: whoever closed it was told.
        self.has_failed = False
        # Once it has given way: the version that was opened in its place, and whether that was written to.
        self.follower: NodeFile | None = None
        self.is_follower_written = False

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it is to be written any more; it may be left to those who have it open."""
        return self.draft is None or not self.draft.is_dirty or (self.has_failed and self.handles == 0)


class FileHandle:
    """One handle of an open file. Threads: any."""

    def __init__(
        self, opened: OpenInode, reader: NodeFile | None, *, writes: bool = False, appends: bool = False
    ) -> None:
        """Read from the draft, once there is one, and from reader until then."""
        self.opened: Final = opened
        self.writes: Final = writes
        self.appends: Final = appends
        self._reader: Final = reader

    @property
    def draft(self) -> Draft:
        """What is written to. Raises: OSError (EBADF: it was opened to be read)."""
        if not self.writes or self.opened.draft is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.opened.draft

    def known(self, offset: int, length: int) -> memoryview | None:
        """Return the range if it can be had at once. Raises: Stale."""
        data = self._source.known(offset, length)
        if data is not None and self.opened.follower is not None:
            self._check_end(self.opened.follower, is_short=len(data) < length)
        return data

    def read(self, offset: int, length: int) -> memoryview:
        """Return the range. Raises: Stale; as ``Draft.read`` and ``NodeFile.read``."""
        data = self._source.read(offset, length)
        if self.opened.follower is not None:
            self._check_end(self.opened.follower, is_short=len(data) < length)
        return data

    @property
    def _source(self) -> Draft | NodeFile:
        source = self.opened.draft or self._reader
        assert source is not None
        return source

    def _check_end(self, follower: NodeFile, *, is_short: bool) -> None:
        """See that where it ends the kernel was not told that it goes on. Raises: Stale."""
        if not is_short:
            return
        source = self._source
        size = source.size if isinstance(source, Draft) else source.entry.size
        if follower.entry.size > size or self.opened.is_follower_written:
            raise Stale(errno.ESTALE, "ends here, but another version goes on", follower.entry.path)
        # Raises unless that still is the version that is known.
        follower.known(follower.entry.size, 0)

    def close(self) -> None:
        """Let go of what it reads from."""
        if self._reader is not None:
            self._reader.close()


class OpenInodes:
    """The open files of one mount. Threads: any."""

    def __init__(self, nodes: Nodes, writer: NodeWriter) -> None:
        """Begin with none."""
        self._nodes: Final = nodes
        self._writer: Final = writer
        self._lock: Final = Lock()
        self._by_inode: Final[dict[int, OpenInode]] = {}
        # Those that have a draft, as long as they have a name.
        self._by_path: Final[dict[str, OpenInode]] = {}
        # Those that have given way and are still open.
        self._outdone: Final[WeakSet[OpenInode]] = WeakSet()

    def __bool__(self) -> bool:
        """Say whether any has a draft."""
        return bool(self._by_path)

    def get(self, inode: int) -> OpenInode | None:
        """Return the open file that has this number."""
        return self._by_inode.get(inode)

    def at(self, path: str) -> OpenInode | None:
        """Return the open file with a draft that has this path."""
        return self._by_path.get(path)

    def within(self, directory: str) -> list[tuple[str, OpenInode]]:
        """Return the files with a draft anywhere below a directory, with their paths."""
        begin = f"{directory}/" if directory else ""
        with self._lock:
            return [each for each in self._by_path.items() if each[0].startswith(begin)]

    def hold(self, node: Node) -> OpenInode:
        """Return the open file of a node, for one more handle."""
        with self._lock:
            opened = self._by_inode.get(node.inode)
            if opened is not None and opened.is_settled and _has_changed(opened, node):
                # Looked up before this mount's own last commit, perhaps.
                node = self._nodes.known(node.inode) or node
                if _has_changed(opened, node):
                    self._forget(opened)
                    opened.follower = self._nodes.open(node)
                    self._outdone.add(opened)
                    opened = None
            if opened is None:
                opened = self._by_inode[node.inode] = OpenInode(node.inode, node)
            if opened.draft is None:
                opened.node = node
            opened.handles += 1
            return opened

    def hold_written(self, inode: int) -> OpenInode | None:
        """Return a file that has something to be written, for one more handle; None: it has not."""
        with self._lock:
            opened = self._by_inode.get(inode)
            if opened is None or opened.is_settled:
                return None
            opened.handles += 1
            return opened

    def create(self, path: str, *, exclusive: bool) -> OpenInode:
        """Return a new file, for one handle. Raises: as ``NodeWriter.draft``."""
        draft = self._writer.draft(path, None, exclusive=exclusive)
        opened = OpenInode(self._nodes.bind(path), None)
        with self._lock:
            opened.draft, opened.handles = draft, 1
            self._by_inode[opened.inode] = self._by_path[path] = opened
        return opened

    def draft_of(self, opened: OpenInode) -> Draft:
        """Return the draft of a file, begun if need be. Raises: as ``NodeWriter.draft``."""
        draft = opened.draft
        if draft is None:
            assert opened.node is not None
            path = opened.node.entry.path
            made = self._writer.draft(path, self._nodes.open(opened.node))
            with self._lock:
                draft = opened.draft
                if draft is None:
                    for each in self._outdone:
                        each.is_follower_written |= each.inode == opened.inode
                    draft = opened.draft = made
                    self._by_path[path] = opened
            if draft is not made:
                made.discard()
        return draft

    def keep(self, inode: int) -> None:
        """Have what is open of a file here, for the object is about to go; what fails is for its readers."""
        opened = self._by_inode.get(inode)
        if opened is None:
            return
        try:
            self.draft_of(opened).fetch()
        except OSError as error:
            _log.warning("what is open goes on without what is not cached: %s", error)

    def removed(self, path: str, inode: int) -> None:
        """Note that a file has no name any more."""
        with self._lock:
            self._by_path.pop(path, None)
            opened = self._by_inode.get(inode)
        if opened is not None and opened.draft is not None:
            opened.draft.drop()

    def moved(self, path: str, target: str) -> None:
        """Note that an open file with a draft has another path."""
        with self._lock:
            opened = self._by_path.pop(path, None)
            if opened is not None:
                self._by_path[target] = opened

    def release(self, opened: OpenInode) -> bool:
        """Take a handle from an open file; return whether it was the last, and ``finish`` is to follow."""
        with self._lock:
            opened.handles -= 1
            if opened.handles == 0 and opened.is_settled:
                self._forget(opened)
            return opened.handles == 0 and opened.draft is not None

    def finish(self, opened: OpenInode) -> bool:
        """Forget a file without handles; return False if it was opened again meanwhile."""
        with self._lock:
            if opened.handles == 0:
                self._forget(opened)
            return opened.handles == 0

    def all(self) -> list[OpenInode]:
        """Return all that are open."""
        with self._lock:
            return list(self._by_inode.values())

    def _forget(self, opened: OpenInode) -> None:
        if self._by_inode.get(opened.inode) is opened:
            del self._by_inode[opened.inode]
        if opened.draft is not None and self._by_path.get(opened.draft.path) is opened:
            del self._by_path[opened.draft.path]


def _has_changed(opened: OpenInode, node: Node) -> bool:
    """Say whether an object is another than what is open has written or begun with."""
    if opened.draft is not None:
        entry = opened.draft.entry
    else:
        entry = None if opened.node is None else opened.node.entry
    return entry is not None and entry.version != node.entry.version
