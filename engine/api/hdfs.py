"""The FileSystem contract of Hadoop over a cache: datasets are the directories at the root.

What the contract has and a cache of objects cannot keep is refused, with io.UnsupportedOperation or the
error of the dataset's under storage; docs/hdfs.md lists it all. Errors are Python's: FileNotFoundError for
Java's FileNotFoundException, FileExistsError for FileAlreadyExistsException, NotADirectoryError for
ParentNotDirectoryException, PermissionError for AccessControlException, EOFError, and OSError with ENOTEMPTY
for PathIsNotEmptyDirectoryException.
"""

from __future__ import annotations

import errno
import getpass
import io
import os
import socket
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

from forebay.api.hadoop import globs
from forebay.api.hadoop.checksum import CHUNK_BYTES, checksum_of
from forebay.api.hadoop.paths import cache_path, child_of, is_within, name_of, normalized, parent_of
from forebay.api.hadoop.status import BlockLocation, ContentSummary, FileChecksum, FileStatus, ServerDefaults
from forebay.api.hadoop.streams import InputStream, OutputStream
from forebay.cache.places import PIECE_BYTES
from forebay.config import KIB
from forebay.errors import NotAttached, NotFound, UnderStorageError, not_found

if TYPE_CHECKING:
    from forebay.cache import Cache
    from forebay.cache.status import FileStatus as CacheStatus

# What one member of a group answers for, and so what a job reads best in one piece.
BLOCK_BYTES: Final = PIECE_BYTES

_NS_PER_MS: Final = 1_000_000
_FILE_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o755
_READ_ONLY: Final = 0o555


class _Nature(NamedTuple):
    """What the files of one dataset have in common: whether they may be written, and may have replicas."""

    is_writable: bool
    has_replicas: bool


class FileSystem:
    """One user's view of a cache, as Hadoop's FileSystem. Threads: any.

    Paths are absolute, ``/dataset/a/b`` or ``/dataset@version/a/b``, or URIs of the schemes forebay, hdfs,
    webhdfs and swebhdfs, whose host is not looked at. Every method raises ValueError (a malformed path),
    FileNotFoundError (also where no such dataset is attached), and what the cache raises.
    """

    def __init__(self, cache: Cache, user: str | None = None) -> None:
        """Show a cache, which the caller keeps open and closes. user: whose files they are, None: mine."""
        self.cache: Final = cache
        self.user: Final = _user() if user is None else user

    def open(self, path: str) -> InputStream:
        """Open a file for reading. Raises: FileNotFoundError (it is a directory, too)."""
        known = self.open_known(path)
        if known is not None:
            return known
        where = cache_path(normalized(path))
        try:
            return InputStream(self.cache.snapshot(where))
        except (NotAttached, NotFound, ValueError, IsADirectoryError) as error:
            raise self._not_a_file(path, error) from error

    def open_known(self, path: str) -> InputStream | None:
        """Open as ``open`` a file that was looked up lately, and still is as it was; else None.

        Never waits, and raises nothing.
        """
        # A path that is not as ``normalized`` makes it is not known.
        if type(path) is not str or path[:1] != "/":
            return None
        known = self.cache.known_snapshot(path[1:])
        return None if known is None else InputStream(known)

    def create(self, path: str, overwrite: bool = True) -> OutputStream:
        """Open a file for writing, with the directories above it; it is there once it is closed.

        Raises: FileExistsError (it is a directory, or there and not to be overwritten);
        NotADirectoryError (something above it is a file); PermissionError.
        """
        fixed = normalized(path)
        self._check_place(fixed)
        status = self._known(fixed)
        if status is not None and (status.is_directory or not overwrite):
            raise FileExistsError(errno.EEXIST, "is a directory" if status.is_directory else "is there", path)
        self._check_above(fixed)
        if not overwrite:
            try:
                return OutputStream(self.cache.open(cache_path(fixed), "xb"))
            except UnderStorageError as error:
                # Where the storage would not tell of two that create one file at a time, the last one wins.
                if error.errno != errno.EOPNOTSUPP:
                    raise
        return OutputStream(self.cache.open(cache_path(fixed), "wb"))

    def append(self, path: str) -> OutputStream:
        """Open a file to write on at its end: all of it is written anew when it is closed.

        Raises: FileNotFoundError (it is a directory, too); PermissionError, OSError (the under storage cannot
        be written); Stale, when it is closed (another has written it meanwhile).
        """
        fixed = normalized(path)
        self._check_inside(fixed, "append")
        try:
            return OutputStream(self.cache.open(cache_path(fixed), "ab"))
        except (NotAttached, NotFound, IsADirectoryError) as error:
            raise self._not_a_file(path, error) from error

    def concat(self, path: str, sources: list[str]) -> None:
        """Refuse. Raises: io.UnsupportedOperation."""
        raise _refused("concat", normalized(path), "files are written whole; write a new one")

    def truncate(self, path: str, length: int) -> bool:
        """Refuse. Raises: io.UnsupportedOperation."""
        raise _refused("truncate", normalized(path), "files are written whole; write it anew")

    def set_times(self, path: str, modification_time: int = -1, access_time: int = -1) -> None:
        """Refuse, but for two -1, which change nothing. Raises: io.UnsupportedOperation."""
        self.get_file_status(path)
        if (modification_time, access_time) != (-1, -1):
            raise _refused("setTimes", path, "a file's time is that of its last write")

    def set_permission(self, path: str, permission: int) -> None:
        """Refuse. Raises: io.UnsupportedOperation."""
        self.get_file_status(path)
        raise _refused("setPermission", path, "under storages keep none")

    def set_owner(self, path: str, owner: str = "", group: str = "") -> None:
        """Refuse. Raises: io.UnsupportedOperation."""
        self.get_file_status(path)
        raise _refused("setOwner", path, "under storages keep none")

    def get_file_status(self, path: str) -> FileStatus:
        """Describe a file or a directory."""
        fixed = normalized(path)
        if fixed == "/":
            return self._directory("/", _READ_ONLY)
        try:
            return self._described(self.cache.stat(cache_path(fixed)), fixed, self._nature(fixed))
        except NotAttached as error:
            raise not_found(fixed, str(error)) from error
        except NotFound as error:
            raise not_found(fixed) from error

    def exists(self, path: str) -> bool:
        """Say whether there is such a file or directory."""
        return self._known(normalized(path)) is not None

    def list_status(self, path: str) -> list[FileStatus]:
        """Describe what lies in a directory, in the order of the names' bytes, or the file itself."""
        return list(self.list_status_iterator(path))

    def list_status_iterator(self, path: str, start_after: str = "") -> Iterator[FileStatus]:
        """Describe as ``list_status``, one by one and in bounded memory, behind a name.

        Raises: FileNotFoundError, at once.
        """
        fixed = normalized(path)
        status = self.get_file_status(fixed)
        if not status.is_directory:
            return iter([status])
        if fixed == "/":
            return (self._directory(f"/{each}", _READ_ONLY) for each in self._names(start_after))
        return self._listed(fixed, start_after)

    def glob_status(self, pattern: str) -> list[FileStatus]:
        """Describe what a pattern stands for, in the order of paths; docs/hdfs.md tells what it may hold."""
        found: dict[str, FileStatus] = {}
        for each in globs.expanded(pattern):
            for status in self._matching(each):
                found.setdefault(status.path, status)
        return [found[path] for path in sorted(found)]

    def get_file_block_locations(
        self, path: str | FileStatus, start: int = 0, length: int | None = None
    ) -> list[BlockLocation]:
        """Return who answers for a range of a file, by blocks of 64 MiB; without a group it is this host.

        Raises: ValueError (negative figures).
        """
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"start {start} and length {length} are to be 0 or more")
        fixed = path.path if isinstance(path, FileStatus) else normalized(path)
        status = self.get_file_status(fixed)
        if status.is_directory or start >= status.length:
            return []
        places = self.cache.places(cache_path(fixed), start, length)
        here = socket.gethostname()
        located = []
        for place in places:
            names = tuple(holder.address for holder in place.holders) or (here,)
            hosts = tuple(name.rpartition(":")[0] or name for name in names)
            gateways = tuple(holder.gateway for holder in place.holders if holder.gateway)
            located.append(BlockLocation(place.offset, place.length, hosts, names, gateways))
        return located

    def get_content_summary(self, path: str) -> ContentSummary:
        """Count what lies at and below a path. Blocking: a listing for each directory."""
        status = self.get_file_status(path)
        if not status.is_directory:
            return ContentSummary(status.length, 1, 0, status.length * status.block_replication)
        length = files = directories = consumed = 0
        waiting = [status.path]
        while waiting:
            directories += 1
            for each in self.list_status_iterator(waiting.pop()):
                if each.is_directory:
                    waiting.append(each.path)
                else:
                    files += 1
                    length += each.length
                    consumed += each.length * each.block_replication
        return ContentSummary(length, files, directories, consumed)

    def get_file_checksum(self, path: str) -> FileChecksum:
        """Return what HDFS with its defaults would have as the checksum of a file. All of it is read."""
        with self.open(path) as stream:
            return checksum_of(stream.length, lambda buffer, offset: stream.read_fully(offset, buffer))

    def mkdirs(self, path: str) -> bool:
        """Make a directory and those above it; one that is there is as good. Returns True.

        Raises: FileExistsError (it is a file); NotADirectoryError (something above it is);
        UnderStorageError with EOPNOTSUPP (the under storage has no empty directories).
        """
        fixed = normalized(path)
        status = self._known(fixed)
        if status is not None:
            if not status.is_directory:
                raise FileExistsError(errno.EEXIST, "is a file", path)
            return True
        self._check_place(fixed)
        self._check_above(fixed)
        self.cache.mkdir(cache_path(fixed))
        return True

    def delete(self, path: str, recursive: bool = False) -> bool:
        """Remove a file or a directory; False if there is none.

        Raises: OSError with ENOTEMPTY (it holds something, and recursive was not said); PermissionError (the
        root, a dataset: those are detached).
        """
        fixed = normalized(path)
        self._check_inside(fixed, "delete")
        if self._known(fixed) is None:
            return False
        try:
            self.cache.delete(cache_path(fixed), recursive=recursive)
        except NotFound:
            return False
        return True

    def rename(self, source: str, target: str) -> bool:
        """Move a file or a directory, into the target if that is a directory; False if that cannot be.

        It cannot where the source is not there, the target is a file or lies below the source, or the
        directory that it is to lie in is not there. One act on file:// alone (docs/hdfs.md). Raises: OSError
        with EXDEV (another dataset); PermissionError (the root, a dataset).
        """
        fixed, wanted = normalized(source), normalized(target)
        self._check_inside(fixed, "rename")
        status = self._known(fixed)
        if status is None or is_within(wanted, fixed):
            return False
        there = self._known(wanted)
        if there is not None and there.is_directory and wanted != fixed:
            wanted = child_of(wanted, name_of(fixed))
            there = self._known(wanted)
        if wanted == fixed:
            return not status.is_directory
        self._check_inside(wanted, "rename")
        if there is not None or not self._is_directory(parent_of(wanted)):
            return False
        self.cache.rename(cache_path(fixed), cache_path(wanted))
        return True

    def rename_exactly(self, source: str, target: str) -> None:
        """Move a file or a directory to that very path, as Hadoop's rename with the option NONE.

        Raises: FileNotFoundError (the source, or the directory that the target is to lie in); FileExistsError
        (the target); NotADirectoryError (what the target is to lie in is a file); OSError with EINVAL (the
        target lies below the source); as ``rename``.
        """
        fixed, wanted = normalized(source), normalized(target)
        self._check_inside(fixed, "rename")
        self._check_inside(wanted, "rename")
        self.get_file_status(fixed)
        if is_within(wanted, fixed):
            raise OSError(errno.EINVAL, f"lies below {fixed}", target)
        if self._known(wanted) is not None:
            raise FileExistsError(errno.EEXIST, "is there", target)
        above = parent_of(wanted)
        if not self.get_file_status(above).is_directory:
            raise NotADirectoryError(errno.ENOTDIR, "is a file", above)
        self.cache.rename(cache_path(fixed), cache_path(wanted))

    def set_replication(self, path: str, replication: int) -> bool:
        """Have a file on so many members of the group; False of a directory.

        Raises: ValueError (less than one); ConfigError (more than one without a group).
        """
        status = self.get_file_status(path)
        if replication < 1:
            raise ValueError(f"replication {replication} is less than 1")
        if status.is_directory:
            return False
        if replication != status.block_replication:
            self.cache.replicas(cache_path(status.path), replication)
        return True

    def get_home_directory(self) -> str:
        """Return /user/NAME, which is there only if a dataset is named so."""
        return f"/user/{self.user}"

    def get_trash_root(self, path: str) -> str:
        """Return where a client that keeps a trash would put it: nothing here does."""
        normalized(path)
        return f"{self.get_home_directory()}/.Trash"

    def get_server_defaults(self) -> ServerDefaults:
        """Return what a client goes by where it was told nothing."""
        return ServerDefaults(BLOCK_BYTES, CHUNK_BYTES, 64 * KIB, 1, 4 * KIB)

    def access(self, path: str, mode: str) -> None:
        """See whether mode, of ``r``, ``w`` and ``x``, is permitted. Raises: PermissionError; ValueError."""
        status = self.get_file_status(path)
        if not set(mode) <= set("rwx-"):
            raise ValueError(f"mode {mode!r} is of r, w and x")
        for letter in set(mode) - {"-"}:
            if not status.permission & {"r": 0o400, "w": 0o200, "x": 0o100}[letter]:
                raise PermissionError(errno.EACCES, f"{letter} is not permitted", path)

    def _listed(self, directory: str, start_after: str) -> Iterator[FileStatus]:
        found = self.cache.scan(cache_path(directory), after=start_after)
        nature = self._nature(directory)
        for each in found:
            yield self._described(each, f"/{each.path}", nature)

    def _matching(self, pattern: str) -> Iterator[FileStatus]:
        """Yield what a pattern without braces around slashes stands for."""
        parts = [part for part in pattern.split("/") if part]
        if not pattern.startswith("/"):
            raise ValueError(f"glob {pattern!r} is relative; paths here begin with /dataset")
        found = [self.get_file_status("/")]
        for part in parts:
            above = [status.path for status in found if status.is_directory]
            if globs.is_plain(part):
                known = (self._known(child_of(each, part)) for each in above)
                found = [status for status in known if status is not None]
                continue
            wanted = globs.compiled(part)
            found = [
                status
                for each in above
                for status in self.list_status_iterator(each)
                if wanted.fullmatch(status.name)
            ]
        yield from found

    def _known(self, fixed: str) -> FileStatus | None:
        try:
            return self.get_file_status(fixed)
        except (NotFound, NotADirectoryError):
            return None

    def _is_directory(self, fixed: str) -> bool:
        status = self._known(fixed)
        return status is not None and status.is_directory

    def _check_inside(self, fixed: str, what: str) -> None:
        """See that a path lies in a dataset. Raises: PermissionError."""
        if fixed.count("/") < 2:
            words = f"{what}: the root and datasets are attached and detached, and nothing else"
            raise PermissionError(errno.EPERM, words, fixed)

    def _check_place(self, fixed: str) -> None:
        """See that a path lies in a dataset that there is. Raises: PermissionError; FileNotFoundError."""
        self._check_inside(fixed, "create")
        dataset = "/" + fixed.split("/")[1]
        if self._known(dataset) is None:
            raise not_found(fixed, f"no dataset {dataset[1:]!r} is attached")

    def _check_above(self, fixed: str) -> None:
        """See that no file lies above a path. Raises: NotADirectoryError."""
        above = parent_of(fixed)
        while above != "/":
            status = self._known(above)
            if status is not None:
                if not status.is_directory:
                    raise NotADirectoryError(errno.ENOTDIR, "is a file", above)
                return
            above = parent_of(above)

    def _names(self, start_after: str) -> Iterator[str]:
        names = (dataset.name for dataset in self.cache.datasets())
        return (name for name in sorted(names) if name > start_after)

    def _nature(self, fixed: str) -> _Nature:
        """Return what the files of the dataset that a path lies in have in common. Raises: NotAttached."""
        label = fixed.split("/")[1]
        name, mark, _ = label.partition("@")
        is_writable = not mark and any(each.writable for each in self.cache.datasets() if each.name == name)
        has_replicas = any(policy.replicas > 1 for policy in self.cache.policies(label).values())
        return _Nature(is_writable, has_replicas)

    def _described(self, status: CacheStatus, fixed: str, nature: _Nature) -> FileStatus:
        if status.is_dir:
            return self._directory(fixed, _DIRECTORY_MODE if nature.is_writable else _READ_ONLY)
        mode = _FILE_MODE if nature.is_writable else _FILE_MODE & _READ_ONLY
        changed_ms = status.mtime_ns // _NS_PER_MS
        return FileStatus(
            path=fixed,
            length=status.size,
            is_directory=False,
            block_replication=self.cache.policy(status.path).replicas if nature.has_replicas else 1,
            block_size=BLOCK_BYTES,
            modification_time=changed_ms,
            access_time=changed_ms,
            permission=mode,
            owner=self.user,
            group=self.user,
            version=status.version,
        )

    def _directory(self, fixed: str, mode: int) -> FileStatus:
        return FileStatus(fixed, 0, True, 0, 0, 0, 0, mode, self.user, self.user, "")

    def _not_a_file(self, path: str, error: Exception) -> Exception:
        if isinstance(error, ValueError) and normalized(path) != "/":
            return error
        if isinstance(error, NotFound):
            return not_found(path)
        return not_found(path, str(error) if isinstance(error, NotAttached) else "is a directory")


def _refused(what: str, path: str, words: str) -> io.UnsupportedOperation:
    return io.UnsupportedOperation(f"{what} {path}: {words}")


@cache
def _user() -> str:
    """Return whose process this is; asked once, for the system looks it up in files, or asks a directory."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
