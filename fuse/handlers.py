"""The operations as pyfuse3 calls them: translation, and nothing else.

What can be answered at once is answered on the event loop; what has to wait does so in a thread, so that one
miss stands in nobody's way. Beside session.py the only module that knows pyfuse3.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Final, TypeVar, TypeVarTuple

import pyfuse3

from forebay.fuse.attributes import Attributes, blocks_of
from forebay.fuse.counters import Operation
from forebay.fuse.errnos import errno_of, is_expected
from forebay.fuse.listing import Listing
from forebay.fuse.loop import Loop
from forebay.fuse.operations import Opened, Operations
from forebay.fuse.writing import Writing

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")

_log = logging.getLogger(__name__)

_BLOCK_BYTES: Final = 4_096
_NAME_BYTES_MAX: Final = 255


class Handlers(pyfuse3.Operations):
    """One mount's requests. Threads: that of the event loop."""

    supports_dot_lookup = False

    def __init__(self, operations: Operations, loop: Loop) -> None:
        """Answer by these operations; those that wait do so in threads of the loop."""
        super().__init__()
        self._operations: Final = operations
        self._counters: Final = operations.counters
        self._in_thread: Final = loop.in_thread
        self._when_idle: Final = loop.when_idle
        self._uid: Final = operations.appearance.uid
        self._gid: Final = operations.appearance.gid

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Return what a name in a directory is."""
        operations = self._operations
        found = await self._answer(
            Operation.LOOKUP, operations.known_lookup, operations.lookup, parent_inode, name
        )
        return self._entry(found)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Nothing is held for an inode that the kernel knows."""

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Return the attributes of an inode."""
        operations = self._operations
        found = await self._answer(Operation.GETATTR, operations.known_getattr, operations.getattr, inode)
        return self._entry(found)

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """Refuse: there are no links, those of a folder are followed when it is listed."""
        raise pyfuse3.FUSEError(errno.EINVAL)

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a file."""
        operations = self._operations
        opened = await self._answer(Operation.OPEN, operations.known_open, operations.open, inode, flags)
        if opened.forget_inode:
            _forget_attributes(inode)
        return _file_info(opened)

    async def read(self, fh: int, off: int, size: int) -> memoryview:  # type: ignore[override]
        """Return bytes, without a copy: pyfuse3 holds on to them until the kernel has them."""
        operations = self._operations
        return await self._answer(Operation.READ, operations.known_read, operations.read, fh, off, size)

    async def release(self, fh: int) -> None:
        """Close a file."""
        begun_ns = perf_counter_ns()
        self._operations.release(fh)
        self._counters.add(Operation.RELEASE, perf_counter_ns() - begun_ns)

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Open a directory."""
        operations = self._operations
        return await self._answer(Operation.OPENDIR, operations.known_opendir, operations.opendir, inode)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Give as many entries of an open directory as there is room for, each with its attributes."""
        begun_ns = perf_counter_ns()
        try:
            listing = self._operations.readdir(fh, start_id)
        except Exception as error:  # noqa: BLE001  (as in _answer)
            raise self._failure(Operation.READDIR, error) from None
        if not listing.is_ahead_of(self._reply(listing, start_id, token)):
            # While the program that has asked looks at these.
            self._when_idle(listing.read_on)
        self._counters.add(Operation.READDIR, perf_counter_ns() - begun_ns)

    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        begun_ns = perf_counter_ns()
        self._operations.releasedir(fh)
        self._counters.add(Operation.RELEASEDIR, perf_counter_ns() - begun_ns)

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Return what the tiers hold."""
        operations = self._operations
        figures = await self._answer(Operation.STATFS, operations.known_statfs, operations.statfs)
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK_BYTES
        data.f_blocks = figures.quota_bytes // _BLOCK_BYTES
        data.f_bfree = data.f_bavail = figures.free_bytes // _BLOCK_BYTES
        data.f_namemax = _NAME_BYTES_MAX
        return data

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """Return an extended attribute."""
        operations = self._operations
        return await self._answer(
            Operation.GETXATTR, operations.known_getxattr, operations.getxattr, inode, name
        )

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """Return the names of extended attributes."""
        operations = self._operations
        return await self._answer(
            Operation.LISTXATTR, operations.known_listxattr, operations.listxattr, inode
        )

    async def _answer(
        self,
        operation: Operation,
        at_once: Callable[[*_Arguments], _T | None],
        waiting: Callable[[*_Arguments], _T],
        *arguments: *_Arguments,
    ) -> _T:
        """Answer at once, or else in a thread. Raises: FUSEError."""
        begun_ns = perf_counter_ns()
        try:
            answer = at_once(*arguments)
            if answer is None:
                self._counters.wait(operation)
                answer = await self._in_thread(waiting, *arguments)
        except Exception as error:  # noqa: BLE001  (the kernel is owed an answer, whatever it is)
            raise self._failure(operation, error) from None
        finally:
            self._counters.add(operation, perf_counter_ns() - begun_ns)
        return answer

    def _reply(self, listing: Listing, start: int, token: pyfuse3.ReaddirToken) -> int:
        """Give entries from a number on; return which is the next.

        The objects that pyfuse3 takes them by are made once.
        """
        appearance, reply = self._operations.appearance, pyfuse3.readdir_reply
        entry = file = self._entry(appearance.described(0, 0, 0, 0.0, is_dir=False))
        directory = self._entry(appearance.described(0, 0, 0, 0.0, is_dir=True))
        timeout_s = 0.0
        for number, (name, inode, size, mtime_ns, held_s, is_dir) in enumerate(
            self._operations.rows(listing, start), start + 1
        ):
            if held_s != timeout_s:
                timeout_s = held_s
                file.entry_timeout = file.attr_timeout = listing.left_s(held_s)
                directory.entry_timeout = directory.attr_timeout = file.attr_timeout
            if is_dir:
                entry = directory
            else:
                entry = file
                entry.st_size = size
                entry.st_blocks = blocks_of(size)
            entry.st_ino = inode
            entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = mtime_ns
            if not reply(token, name, entry, number):
                return number - 1
        return len(listing)

    def _failure(self, operation: Operation, error: Exception) -> pyfuse3.FUSEError:
        self._counters.fail(operation)
        if not is_expected(error):
            _log.error("%s: internal error", operation.name.lower(), exc_info=error)
        elif not isinstance(error, FileNotFoundError):
            _log.info("%s: %s", operation.name.lower(), error)
        return pyfuse3.FUSEError(errno_of(error))

    def _entry(self, attributes: Attributes) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        inode, mode, nlink, size, mtime_ns, timeout_s = attributes
        entry.st_ino = inode
        entry.entry_timeout = entry.attr_timeout = timeout_s
        entry.st_mode = mode
        entry.st_nlink = nlink
        entry.st_uid = self._uid
        entry.st_gid = self._gid
        entry.st_size = size
        entry.st_blocks = blocks_of(size)
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = mtime_ns
        return entry


class WritingHandlers(Handlers):
    """The requests of a mount that is written to as well."""

    def __init__(self, operations: Writing, loop: Loop) -> None:
        """Answer by these operations, as ``Handlers`` does."""
        super().__init__(operations, loop)
        self._writing: Final = operations

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make a file and open it."""
        opened, attributes = await self._wait(
            Operation.CREATE, self._writing.create, parent_inode, name, flags
        )
        return _file_info(opened), self._entry(attributes)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write bytes."""
        writing = self._writing
        return await self._answer(Operation.WRITE, writing.known_write, writing.write, fh, off, buf)

    async def flush(self, fh: int) -> None:
        """Write the file, for a descriptor of it is being closed."""
        writing = self._writing
        await self._answer(Operation.FLUSH, writing.known_flush, writing.flush, fh)

    async def fsync(self, fh: int, datasync: bool) -> None:
        """Write the file."""
        writing = self._writing
        await self._answer(Operation.FSYNC, writing.known_flush, writing.flush, fh)

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Names are at the under storage when they are made."""

    async def release(self, fh: int) -> None:
        """Close a file, whose last descriptor was closed."""
        writing = self._writing
        await self._answer(Operation.RELEASE, writing.known_release, writing.release, fh)

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Set size and time; owner and permissions are the mount's, and stay as they are."""
        writing = self._writing
        size = attr.st_size if fields.update_size else None
        mtime_ns = attr.st_mtime_ns if fields.update_mtime else None
        found = await self._answer(
            Operation.SETATTR, writing.known_setattr, writing.setattr, inode, fh, size, mtime_ns
        )
        return self._entry(found)

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove a file."""
        await self._wait(Operation.UNLINK, self._writing.unlink, parent_inode, name)

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        return self._entry(await self._wait(Operation.MKDIR, self._writing.mkdir, parent_inode, name))

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove an empty directory."""
        await self._wait(Operation.RMDIR, self._writing.rmdir, parent_inode, name)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Rename a file or a directory."""
        await self._wait(
            Operation.RENAME,
            self._writing.rename,
            parent_inode_old,
            name_old,
            parent_inode_new,
            name_new,
            flags,
        )

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Refuse: there are no links."""
        raise pyfuse3.FUSEError(errno.EPERM)

    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Refuse: an object has one name."""
        raise pyfuse3.FUSEError(errno.EPERM)

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Refuse: there are files and directories, and nothing else."""
        raise pyfuse3.FUSEError(errno.EPERM)

    async def _wait(
        self, operation: Operation, waiting: Callable[[*_Arguments], _T], *arguments: *_Arguments
    ) -> _T:
        """Answer in a thread. Raises: FUSEError."""
        return await self._answer(operation, _unknown, waiting, *arguments)


def _unknown(*arguments: object) -> None:
    """Nothing can be said at once."""


def _file_info(opened: Opened) -> pyfuse3.FileInfo:
    return pyfuse3.FileInfo(fh=opened.handle, direct_io=opened.is_direct, keep_cache=opened.keep_pages)


def _forget_attributes(inode: int) -> None:
    """Have the kernel ask anew for what it was told of an inode, as if its time were over."""
    try:
        pyfuse3.invalidate_inode(inode, attr_only=True)
    except OSError as error:
        # It knows nothing of it.
        _log.debug("inode %d: %s", inode, error)
