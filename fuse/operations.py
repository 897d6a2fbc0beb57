"""What a mount does, for whichever program speaks to the kernel.

Most operations come in two forms. ``known_...`` answers at once, from memory, the metadata and the store, or
returns None where the under storage would have to be asked: it may be called where nothing may wait. The
other waits. Names are bytes and inodes numbers, as the kernel has them; errors are exceptions, which
errnos.py translates.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from forebay.cache import ROOT_INODE, Attached, Entry, Figures, Node, NodeFile, Nodes
from forebay.fuse.attributes import FOR_EVER_S, SHARED_S, Appearance, Attributes
from forebay.fuse.counters import Counters
from forebay.fuse.handles import DIRECTORIES_MAX, FILES_MAX, Handles
from forebay.fuse.listing import Listing, Row
from forebay.fuse.options import MountOptions
from forebay.fuse.outdated import Outdated
from forebay.fuse.pages import PageKeeper
from forebay.fuse.virtual import FOLDER, Virtual
from forebay.fuse.xattrs import Xattrs

# Counting what the tiers hold takes milliseconds, and `df` asks several times.
_FIGURES_KEPT_S: Final = 1.0
_FOLDER_PATH: Final = FOLDER.decode()


class Opened(NamedTuple):
    """An open file: its handle, and what the kernel may do with the pages it has of it.

    keep_pages: it may show those that it has. is_direct: it is to have none, and to ask for all.
    forget_inode: what it was told of the inode may no longer hold.
    """

    handle: int
    keep_pages: bool = False
    is_direct: bool = False
    forget_inode: bool = False


class OpenFile(Protocol):
    """What is open under a file's handle."""

    def known(self, offset: int, length: int) -> memoryview | None:
        """Return the range if it can be had at once."""
        ...

    def read(self, offset: int, length: int) -> memoryview:
        """Return the range."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Operations:
    """The operations of one mount of one dataset, to be read. Threads: any."""

    def __init__(
        self,
        nodes: Nodes,
        options: MountOptions,
        *,
        read_only: bool,
        status: Callable[[], dict[str, Any]],
    ) -> None:
        """Show these nodes; status is the cache's own, for the folder .forebay. May block."""
        self.counters: Final = Counters()
        timeout_s_max = SHARED_S if nodes.attached().record.writable else FOR_EVER_S
        self.appearance: Final = Appearance(options, read_only=read_only, timeout_s_max=timeout_s_max)
        self.files: Final[Handles[OpenFile]] = Handles("files", FILES_MAX)
        self.directories: Final[Handles[Listing]] = Handles("directories", DIRECTORIES_MAX)
        self._nodes: Final = nodes
        self._options: Final = options
        self._status: Final = status
        self._virtual: Final = Virtual(self.appearance, {b"stats": self._stats})
        self._xattrs: Final = Xattrs(nodes)
        self._pages: Final = PageKeeper(nodes)
        self._outdated: Final = Outdated(nodes)
        self._figures: tuple[float, Figures] | None = None

    def known_lookup(self, parent: int, name: bytes) -> Attributes | None:
        """Return what a name in a directory is. Raises: NotFound, Stale."""
        if parent <= ROOT_INODE or self._virtual.owns(parent):
            if parent != ROOT_INODE:
                return self._virtual.lookup(parent, name)
            if name == FOLDER:
                return self._virtual.folder()
        node = self._nodes.known_child(parent, _text(name))
        return None if node is None else self._found(parent, name, node)

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """Return what a name in a directory is. Raises: as UnderStorage.stat."""
        return self._found(parent, name, self._nodes.child(parent, _text(name)))

    def known_getattr(self, inode: int) -> Attributes | None:
        """Return the attributes of an inode. Raises: Stale."""
        if self._virtual.owns(inode):
            return self._virtual.attributes(inode)
        node = self._nodes.known(inode)
        return None if node is None else self._shown(node)

    def getattr(self, inode: int) -> Attributes:
        """Return the attributes of an inode. Raises: as UnderStorage.stat; Stale."""
        return self._shown(self._nodes.node(inode))

    def known_open(self, inode: int, flags: int) -> Opened | None:
        """Open a file to be read. Raises: OSError (EROFS, EISDIR, ENFILE); Stale."""
        self._refuse_writing(flags)
        if self._virtual.owns(inode):
            return None
        node = self._nodes.known(inode)
        return None if node is None else self._opened(node)

    def open(self, inode: int, flags: int) -> Opened:
        """Open a file to be read. Raises: as ``known_open``; as UnderStorage.stat."""
        self._refuse_writing(flags)
        if self._virtual.owns(inode):
            return Opened(self.files.add(_Made(self._virtual.content(inode))), is_direct=True)
        return self._opened(self._nodes.node(inode))

    def known_read(self, handle: int, offset: int, length: int) -> memoryview | None:
        """Return bytes of an open file; fewer only at its end. Raises: Stale; OSError (EBADF)."""
        self._pages.heard_of(handle)
        return self.files.get(handle).known(offset, length)

    def read(self, handle: int, offset: int, length: int) -> memoryview:
        """Return bytes of an open file. Raises: as UnderStorage.read_range."""
        return self.files.get(handle).read(offset, length)

    def release(self, handle: int) -> None:
        """Close a file."""
        opened = self.files.remove(handle)
        if opened is not None:
            self._pages.closed(handle)
            opened.close()

    def known_opendir(self, inode: int) -> int | None:
        """Open a directory, if what lies in it is known. Raises: OSError (ENOTDIR)."""
        if self._virtual.owns(inode):
            return self._opened_directory(partial(self._list_virtual, inode))
        pages = self._nodes.known_children(inode)
        return None if pages is None else self._opened_directory(partial(self._fill, inode, pages))

    def opendir(self, inode: int) -> int:
        """Open a directory. Raises: as UnderStorage.list."""
        return self._opened_directory(partial(self._fill, inode, self._children(inode)))

    def readdir(self, handle: int, start: int) -> Listing:
        """Return what an open directory shows, read up to that entry. Raises: OSError (EBADF, EIO)."""
        listing = self.directories.get(handle)
        listing.reach(start)
        return listing

    def rows(self, listing: Listing, start: int) -> Iterator[Row]:
        """Yield entries of an open directory, as they are now where something has changed since."""
        rows = listing.rows(start)
        return rows if listing.holds else map(self._renewed, rows)

    def releasedir(self, handle: int) -> None:
        """Close a directory."""
        listing = self.directories.remove(handle)
        if listing is not None:
            listing.close()

    def known_statfs(self) -> Figures | None:
        """Return what the tiers hold, if it was counted just now."""
        figures = self._figures
        return figures[1] if figures is not None and time.monotonic() - figures[0] < _FIGURES_KEPT_S else None

    def statfs(self) -> Figures:
        """Return what the tiers hold."""
        figures = self._count()
        self._figures = (time.monotonic(), figures)
        return figures

    def known_getxattr(self, inode: int, name: bytes) -> bytes | None:
        """Return an extended attribute. Raises: OSError (ENODATA; EOPNOTSUPP); Stale."""
        node = self._nodes.known(inode) if self._has_xattrs(inode, name) else None
        return None if node is None else self._xattrs.value(node, name)

    def getxattr(self, inode: int, name: bytes) -> bytes:
        """Return an extended attribute. Raises: OSError (ENODATA); as UnderStorage.stat."""
        return self._xattrs.value(self._nodes.node(inode), name)

    def known_listxattr(self, inode: int) -> list[bytes] | None:
        """Return the names of a file's extended attributes."""
        if self._virtual.owns(inode):
            return []
        node = self._nodes.known(inode)
        return None if node is None else self._xattrs.names(node)

    def listxattr(self, inode: int) -> list[bytes]:
        """Return the names of a file's extended attributes. Raises: as UnderStorage.stat."""
        return self._xattrs.names(self._nodes.node(inode))

    def outdated(self) -> list[bytes]:
        """Return the names at the root that the kernel is to forget, with all that lies below them.

        To be asked now and then. May block. Raises: NotAttached; Closed.
        """
        return self._outdated.take()

    def close(self) -> None:
        """Close what is still open."""
        for opened in self.files.remove_all():
            opened.close()
        self.directories.remove_all()

    def _found(self, parent: int, name: bytes, node: Node) -> Attributes:
        attributes = self._shown(node)
        if parent != ROOT_INODE:
            return attributes
        return attributes._replace(timeout_s=self._outdated.told(name, attributes.timeout_s))

    def _count(self) -> Figures:
        """Count what the tiers hold."""
        return self._nodes.figures()

    def _shown(self, node: Node) -> Attributes:
        """Return what a node looks like."""
        return self.appearance.of(node)

    def _children(self, inode: int) -> Iterator[list[Entry]]:
        """Yield what lies in a directory, asking if need be. Raises: as UnderStorage.list."""
        return self._nodes.children(inode)

    def _opened(self, node: Node) -> Opened:
        if node.entry.is_dir:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), node.entry.path)
        file: NodeFile = self._nodes.open(node)
        handle = self.files.add(file)
        pages = self._pages.opened(node, handle)
        return Opened(handle, pages.may_be_kept, pages.is_apart, pages.is_doubtful)

    def _refuse_writing(self, flags: int) -> None:
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EROFS, "the mount is read-only")

    def _opened_directory(self, fill: Callable[[Listing], Iterator[None]]) -> int:
        """Open what is filled so, with its first page, and holds until something is different."""
        listing = Listing(fill, partial(self._nodes.is_still, self._nodes.state()))
        listing.reach(0)
        return self.directories.add(listing)

    def _list_virtual(self, inode: int, listing: Listing) -> Iterator[None]:
        if not self._virtual.is_folder(inode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        for name, attributes in self._virtual.entries():
            listing.add(name, attributes, is_dir=False)
        yield

    def _fill(self, inode: int, pages: Iterator[list[Entry]], listing: Listing) -> Iterator[None]:
        """Add entries to a listing, a page at each step."""
        if inode == ROOT_INODE and self._options.show_control:
            listing.add(FOLDER, self._virtual.folder(), is_dir=True)
        attached = self._nodes.attached()
        for page in pages:
            if inode == ROOT_INODE:
                page = [entry for entry in page if entry.path != _FOLDER_PATH]
            listing.add_page(page, self._timeouts_s(attached, inode, page))
            yield

    def _timeouts_s(self, attached: Attached, directory: int, entries: Sequence[Entry]) -> list[float]:
        """Return for how long the kernel may keep what lies in a directory."""
        timeout_of = self.appearance.timeout_of
        if attached.lasts:
            timeouts_s = [timeout_of(None)] * len(entries)
        else:
            timeouts_s = [timeout_of(self._nodes.valid_s(attached, entry)) for entry in entries]
        if directory != ROOT_INODE:
            return timeouts_s
        told = self._outdated.told
        return [
            told(_name(entry.path), timeout_s) for entry, timeout_s in zip(entries, timeouts_s, strict=True)
        ]

    def _renewed(self, row: Row) -> Row:
        """Return a row as it is known now: an old size would cut what others have open."""
        name, inode, _, _, timeout_s, is_dir = row
        try:
            found = None if is_dir else self.known_getattr(inode)
        except (OSError, ValueError, LookupError):
            # It has gone: nobody has it open here.
            found = None
        return row if found is None else (name, inode, found.size, found.mtime_ns, timeout_s, is_dir)

    def _has_xattrs(self, inode: int, name: bytes) -> bool:
        """Say whether a file may have such an attribute. Raises: OSError (ENODATA; EOPNOTSUPP)."""
        if not self._xattrs.is_known(name) or self._virtual.owns(inode):
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return True

    def _stats(self) -> bytes:
        status = {
            "pid": os.getpid(),
            "dataset": self._nodes.attached().fixed_label,
            "options": self._options.to_json(),
            "open": {
                "files": len(self.files),
                "files_max": self.files.count_max,
                "directories": len(self.directories),
                "directories_max": self.directories.count_max,
            },
            "threads": threading.active_count(),
            "operations": self.counters.to_json(),
            "cache": self._status(),
        }
        return json.dumps(status, indent=2).encode() + b"\n"


class _Made:
    """A file of .forebay, open: the content that it had then."""

    def __init__(self, content: bytes) -> None:
        self._content: Final = memoryview(content)

    def known(self, offset: int, length: int) -> memoryview:
        return self._content[offset : offset + length]

    def read(self, offset: int, length: int) -> memoryview:
        return self.known(offset, length)

    def close(self) -> None:
        """Nothing is held."""


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _name(path: str) -> bytes:
    return path.rpartition("/")[2].encode("utf-8", "surrogateescape")
