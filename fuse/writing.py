"""What a mount does that is written to: files, which are staged here until they are closed.

A close, or an fsync, returns when the under storage has the file, or fails with what came of that. Nothing is
written without one: what is open when the mount ends is as it was. tree_changes.py has what changes names.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, cast

from forebay.cache import ROOT_INODE, Entry, Figures, Node, Nodes
from forebay.errors import NotFound, Stale
from forebay.fuse.attributes import Attributes
from forebay.fuse.folders import Folders
from forebay.fuse.listing import Listing, Row
from forebay.fuse.opened import FileHandle, OpenInode, OpenInodes
from forebay.fuse.operations import Opened, Operations
from forebay.fuse.options import MountOptions
from forebay.fuse.times import Times
from forebay.fuse.tree_changes import TreeChanges
from forebay.fuse.virtual import FOLDER

_log = logging.getLogger(__name__)


class Writing(Operations):
    """The operations of one mount of one dataset, to be read and written. Threads: any."""

    def __init__(self, nodes: Nodes, options: MountOptions, *, status: Callable[[], dict[str, Any]]) -> None:
        """Show these nodes, as ``Operations`` does."""
        super().__init__(nodes, options, read_only=False, status=status)
        self._writer: Final = nodes.writer()
        self._inodes: Final = OpenInodes(nodes, self._writer)
        self._folders: Final = Folders()
        self._times: Final = Times()
        # By the numbers of handles that are closed, what is still to be seen to.
        self._ending: Final[dict[int, OpenInode]] = {}
        self._tree: Final = TreeChanges(nodes, self._writer, self._inodes, self._folders)

    def known_lookup(self, parent: int, name: bytes) -> Attributes | None:
        """Return what a name in a directory is. Raises: NotFound, Stale."""
        if self._virtual.owns(parent) or not (self._inodes or self._folders):
            return super().known_lookup(parent, name)
        path = self._path_in(parent, name)
        found = self._own(path)
        if found is not None:
            return found
        try:
            return super().known_lookup(parent, name)
        except NotFound:
            found = self._folder(path)
            if found is None:
                raise
            return found

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """Return what a name in a directory is. Raises: as UnderStorage.stat."""
        try:
            return super().lookup(parent, name)
        except NotFound:
            found = self._folder(self._path_in(parent, name))
            if found is None:
                raise
            return found

    def known_getattr(self, inode: int) -> Attributes | None:
        """Return the attributes of an inode. Raises: Stale."""
        opened = self._inodes.get(inode)
        if opened is not None and opened.draft is not None:
            return self._of_draft(opened)
        try:
            return super().known_getattr(inode)
        except (NotFound, Stale) as error:
            return self._gone(inode, error)

    def getattr(self, inode: int) -> Attributes:
        """Return the attributes of an inode. Raises: as UnderStorage.stat; Stale."""
        try:
            return super().getattr(inode)
        except (NotFound, Stale) as error:
            return self._gone(inode, error)

    def known_open(self, inode: int, flags: int) -> Opened | None:
        """Open a file. Raises: OSError (EISDIR, ENFILE, EROFS); Stale."""
        if self._virtual.owns(inode):
            return super().known_open(inode, flags)
        if flags & os.O_TRUNC:
            # It may be written at this moment, which is waited for.
            return None
        written = self._inodes.hold_written(inode)
        if written is not None:
            return self._opened_for(written, flags)
        try:
            node = self._nodes.known(inode)
        except NotFound as error:
            raise _forgotten(error) from error
        return None if node is None else self._opened_node(node, flags)

    def open(self, inode: int, flags: int) -> Opened:
        """Open a file. Raises: as ``known_open``; as UnderStorage.stat."""
        if self._virtual.owns(inode):
            return super().open(inode, flags)
        written = self._inodes.hold_written(inode)
        if written is not None:
            return self._opened_for(written, flags)
        try:
            return self._opened_node(self._nodes.node(inode), flags)
        except NotFound as error:
            raise _forgotten(error) from error

    def create(self, parent: int, name: bytes, flags: int) -> tuple[Opened, Attributes]:
        """Make a file, which is at the under storage once it is closed, and open it.

        Raises: OSError (EROFS; EEXIST: O_EXCL, and it is known to be there; EPERM: in .forebay; ENFILE).
        """
        path = self._new_path(parent, name)
        there = self._inodes.at(path)
        node = None if there is not None else self._node_at(parent, name)
        if there is None and node is None:
            return self._made(path, flags)
        if flags & os.O_EXCL:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if node is not None:
            opened = self._opened_node(node, flags)
            return opened, self.known_getattr(node.inode) or self._shown(node)
        assert there is not None
        held = self._inodes.hold_written(there.inode)
        if held is None:
            raise Stale(errno.ESTALE, "it was closed at this moment", path)
        return self._opened_for(held, flags), self._of_draft(held)

    def known_write(self, handle: int, offset: int, data: bytes) -> int | None:
        """Write to an open file, if that is to memory; return how many bytes. Raises: OSError (EBADF)."""
        self._pages.heard_of(handle)
        file = self._file(handle)
        is_done = file.draft.write_at_once(None if file.appends else offset, data)
        return len(data) if is_done else None

    def write(self, handle: int, offset: int, data: bytes) -> int:
        """Write to an open file; return how many bytes.

        Raises: Stale; as UnderStorage.read_range; OSError (EBADF; ENOSPC, EDQUOT: it cannot be staged).
        """
        file = self._file(handle)
        file.draft.write(None if file.appends else offset, data)
        file.opened.has_failed = False
        return len(data)

    def known_flush(self, handle: int) -> bool | None:
        """Close a descriptor of an open file, if nothing is to be written."""
        file = self.files.get(handle)
        # Who only reads leaves the time to those who write.
        return None if isinstance(file, FileHandle) and file.writes and file.draft.is_dirty else True

    def flush(self, handle: int) -> bool:
        """Have the under storage have what was written. Raises: as ``Draft.commit``."""
        self._commit(self._file(handle).opened)
        return True

    def known_release(self, handle: int) -> bool | None:
        """Close a file, if that needs no wait."""
        file = self.files.remove(handle)
        if file is None:
            return True
        self._pages.closed(handle)
        file.close()
        if not isinstance(file, FileHandle) or not self._inodes.release(file.opened):
            return True
        # From here on it is not open: who opens it now must not come upon it.
        self._ending[handle] = file.opened
        return None

    def release(self, handle: int) -> None:
        """Go on where ``known_release`` has ended: what was written since its last flush is written now."""
        self._end(self._ending.pop(handle))

    def known_setattr(
        self, inode: int, handle: int | None, size: int | None, mtime_ns: int | None
    ) -> Attributes | None:
        """Set what the kernel was asked to, if that needs no wait: a time."""
        self._refuse_virtual(inode)
        if size is not None:
            return None
        found = self.known_getattr(inode)
        return None if found is None else self._with_time(found, mtime_ns)

    def setattr(self, inode: int, handle: int | None, size: int | None, mtime_ns: int | None) -> Attributes:
        """Set size and time; without a handle the under storage has the new size when this returns.

        Raises: as ``write`` and ``flush``; OSError (EISDIR).
        """
        if size is not None:
            if handle is not None:
                self._file(handle).draft.truncate(size)
            else:
                self._truncate(inode, size)
        return self._with_time(self.known_getattr(inode) or self.getattr(inode), mtime_ns)

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file; who has it open goes on with it. Raises: as ``Cache.delete``."""
        self._tree.unlink(parent, self._old_path(parent, name))

    def mkdir(self, parent: int, name: bytes) -> Attributes:
        """Make a directory. Raises: as ``Cache.mkdir``; FileExistsError."""
        path = self._new_path(parent, name)
        if self._own(path) is not None or self._node_at(parent, name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self._tree.mkdir(path)
        return self._folder(path) or self.lookup(parent, name)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory. Raises: as ``Cache.delete``."""
        self._tree.rmdir(parent, self._old_path(parent, name))

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        """Rename a file or a directory. Raises: as ``Cache.rename``; OSError (ENOSYS: flags)."""
        if flags:
            # The kernel asks no more, and answers EINVAL: the storages cannot.
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        path, target = self._old_path(parent, name), self._new_path(new_parent, new_name)
        before = self.known_lookup(parent, name) or self.lookup(parent, name)
        self._tree.rename(parent, path, target)
        # A copy has a time of its own, and a file that is renamed another version.
        node = self._node_of(before.inode)
        if node is not None and not node.entry.is_dir:
            self._times.set(before.inode, node.entry.version, before.mtime_ns)

    def rows(self, listing: Listing, start: int) -> Iterator[Row]:
        """Yield entries of an open directory, as they are now where something may have changed since."""
        # What is being written changes without a word to others.
        return map(self._renewed, listing.rows(start)) if self._inodes else super().rows(listing, start)

    def close(self) -> None:
        """Close what is still open; what was not written is not written any more."""
        for opened in self._inodes.all():
            if opened.draft is not None and opened.draft.is_dirty:
                _log.warning("%s: was open when the mount ended, and was not written", opened.draft.path)
        super().close()
        for opened in self._inodes.all():
            if opened.draft is not None:
                opened.draft.discard(waits=False)

    def _count(self) -> Figures:
        """Count what the tiers hold; what is free is what can be written at a time."""
        figures, room = super()._count(), self._writer.room_bytes()
        return figures._replace(quota_bytes=figures.used_bytes + room, free_bytes=room)

    def _opened_node(self, node: Node, flags: int) -> Opened:
        if node.entry.is_dir:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), node.entry.path)
        return self._opened_for(self._inodes.hold(node), flags, node)

    def _made(self, path: str, flags: int) -> tuple[Opened, Attributes]:
        """Make a file and open it. Raises: OSError (EROFS; ENFILE: then nothing is made)."""
        handle = self.files.reserve()
        try:
            made = self._inodes.create(path, exclusive=bool(flags & os.O_EXCL))
        except BaseException:
            self.files.remove(handle)
            raise
        return self._opened_as(handle, made, flags), self._of_draft(made)

    def _opened_for(self, opened: OpenInode, flags: int, node: Node | None = None) -> Opened:
        """Open a file that is held for this handle."""
        try:
            # Before anything is changed: an open that fails leaves the object as it was.
            handle = self.files.reserve()
        except BaseException:
            self._let_go(opened)
            raise
        return self._opened_as(handle, opened, flags, node)

    def _opened_as(self, handle: int, opened: OpenInode, flags: int, node: Node | None = None) -> Opened:
        """Open a file that is held for this handle, of which there is no more than the number."""
        try:
            writes = flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)
            reader = None
            if writes:
                draft = self._inodes.draft_of(opened)
                if flags & os.O_TRUNC:
                    draft.truncate(0)
            elif node is not None:
                reader = self._nodes.open(node)
            appends = writes and bool(flags & os.O_APPEND)
            self.files.put(handle, FileHandle(opened, reader, writes=writes, appends=appends))
        except BaseException:
            self.files.remove(handle)
            self._let_go(opened)
            raise
        if node is None:
            pages = self._pages.opened_written(opened.inode, handle, id(opened))
        else:
            pages = self._pages.opened(node, handle, id(opened))
        # The kernel would keep pages of what is appended where it believes the end to be.
        return Opened(handle, pages.may_be_kept, appends or pages.is_apart, pages.is_doubtful)

    def _let_go(self, opened: OpenInode) -> None:
        """Take a handle from an open file, and see to it if that was the last."""
        if self._inodes.release(opened):
            self._end(opened)

    def _commit(self, opened: OpenInode) -> None:
        """Write a file. Raises: as ``Draft.commit``."""
        draft = opened.draft
        if draft is None or not draft.is_dirty:
            return
        opened.has_failed = True
        mtime_ns = draft.mtime_ns
        try:
            entry = draft.commit()
        except BaseException:
            # The kernel has pages of what was not written.
            self._pages.spoilt(opened.inode)
            raise
        opened.has_failed = False
        if entry is not None:
            self._times.set(opened.inode, entry.version, mtime_ns)
            self._pages.written(opened.inode, self._nodes.attached().fixed_label, entry.version)

    def _end(self, opened: OpenInode) -> None:
        """See to a file whose last handle is closed."""
        draft = opened.draft
        assert draft is not None
        try:
            if not opened.has_failed:
                self._commit(opened)
        except (OSError, ValueError, LookupError) as error:
            _log.error("%s: was not written: %s", draft.path, error)
        if self._inodes.finish(opened):
            if draft.is_dirty:
                _log.error("%s: %d bytes that were not written are lost", draft.path, draft.size)
            draft.discard()

    def _truncate(self, inode: int, size: int) -> None:
        opened = self._inodes.hold_written(inode) or self._inodes.hold(self._nodes.node(inode))
        try:
            self._inodes.draft_of(opened).truncate(size)
            self._commit(opened)
        finally:
            # What the kernel had of it may have been of an older version.
            self._pages.spoilt(opened.inode)
            self._let_go(opened)

    def _with_time(self, attributes: Attributes, mtime_ns: int | None) -> Attributes:
        """Have a time shown, and return the attributes with it."""
        if mtime_ns is None:
            return attributes
        opened = self._inodes.get(attributes.inode)
        draft = None if opened is None else opened.draft
        if draft is not None:
            draft.set_mtime(mtime_ns)
            entry = draft.entry
        else:
            node = self._node_of(attributes.inode)
            entry = None if node is None else node.entry
        if entry is not None:
            self._times.set(attributes.inode, entry.version, mtime_ns)
        return attributes._replace(mtime_ns=mtime_ns)

    def _shown(self, node: Node) -> Attributes:
        opened = self._inodes.get(node.inode)
        if opened is not None and opened.draft is not None:
            return self._of_draft(opened)
        found = super()._shown(node)
        return found._replace(mtime_ns=self._times.of(node.inode, node.entry.version, found.mtime_ns))

    def _own(self, path: str) -> Attributes | None:
        """Return what is known here alone: a file that is being written."""
        opened = self._inodes.at(path)
        return None if opened is None else self._of_draft(opened)

    def _of_draft(self, opened: OpenInode) -> Attributes:
        draft = opened.draft
        assert draft is not None
        timeout_s = self.appearance.timeout_s_max
        return self.appearance.described(opened.inode, draft.size, draft.mtime_ns, timeout_s, is_dir=False)

    def _folder(self, path: str) -> Attributes | None:
        """Return a directory that only this mount knows of."""
        inode = self._folders.get(path)
        return None if inode is None else self._as_folder(inode)

    def _as_folder(self, inode: int) -> Attributes:
        return self.appearance.described(inode, 0, self._folders.mtime_ns, 0.0, is_dir=True)

    def _gone(self, inode: int, error: Exception) -> Attributes:
        """Return the attributes of what the under storage has no more. Raises: Stale."""
        opened = self._inodes.get(inode)
        if opened is not None and opened.node is not None:
            return super()._shown(opened.node)
        found = self._folder(self._nodes.path_of(inode))
        if found is None:
            raise _forgotten(error) from error
        return found

    def _children(self, inode: int) -> Iterator[list[Entry]]:
        try:
            return super()._children(inode)
        except NotFound:
            if self._folders.get(self._nodes.path_of(inode)) is None:
                raise
            return iter(())

    def _fill(self, inode: int, pages: Iterator[list[Entry]], listing: Listing) -> Iterator[None]:
        """Add entries to a listing, and behind them what is known here alone."""
        if not (self._inodes or self._folders or self._times):
            yield from super()._fill(inode, pages, listing)
            return
        directory = self._nodes.path_of(inode)
        begin = f"{directory}/" if directory else ""
        own = {
            path: self._of_draft(opened)
            for path, opened in self._inodes.within(directory)
            if "/" not in path[len(begin) :]
        }
        folders = dict.fromkeys(self._folders.inside(directory))
        yield from super()._fill(inode, self._dressed(pages, own, folders), listing)
        for path, attributes in own.items():
            listing.add(_name(path), attributes, is_dir=False)
        for path in folders:
            found = self._folder(path)
            if found is not None:
                listing.add(_name(path), found, is_dir=True)

    def _dressed(
        self, pages: Iterator[list[Entry]], own: dict[str, Attributes], folders: dict[str, None]
    ) -> Iterator[list[Entry]]:
        """Yield entries without those in own, and with the times that are shown here."""
        times = self._times
        for page in pages:
            dressed = []
            for entry in page:
                folders.pop(entry.path, None)
                if entry.path not in own:
                    mtime_ns = times.of(entry.inode, entry.version, entry.mtime_ns)
                    dressed.append(entry._replace(mtime_ns=mtime_ns))
            yield dressed

    def _file(self, handle: int) -> FileHandle:
        return cast(FileHandle, self.files.get(handle))

    def _node_at(self, parent: int, name: bytes) -> Node | None:
        """Return what is known to be there; the kernel has looked just before."""
        try:
            return self._nodes.known_child(parent, _text(name))
        except NotFound:
            return None

    def _node_of(self, inode: int) -> Node | None:
        """Return what a node is, if it can be told."""
        try:
            return self._nodes.known(inode) or self._nodes.node(inode)
        except OSError:
            return None

    def _path_in(self, parent: int, name: bytes) -> str:
        return self._nodes.path_in(parent, _text(name))

    def _old_path(self, parent: int, name: bytes) -> str:
        """Return the path of a name that is to go. Raises: OSError (EPERM: in .forebay)."""
        self._refuse_virtual(parent)
        if parent == ROOT_INODE and name == FOLDER:
            raise OSError(errno.EPERM, "is the mount's own", FOLDER)
        return self._path_in(parent, name)

    def _new_path(self, parent: int, name: bytes) -> str:
        """Return the path of a name that is to be there. Raises: as ``_old_path``; as NodeWriter.check."""
        self._writer.check()
        return self._old_path(parent, name)

    def _refuse_virtual(self, inode: int) -> None:
        if self._virtual.owns(inode):
            raise OSError(errno.EPERM, "is the mount's own", FOLDER)


def _forgotten(error: Exception) -> Stale:
    """Make what has the kernel look the name up anew, whatever it believes."""
    return Stale(errno.ESTALE, f"is not there any more: {error}")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _name(path: str) -> bytes:
    return path.rpartition("/")[2].encode("utf-8", "surrogateescape")
