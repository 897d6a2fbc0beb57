"""``file:///folder``: a local folder as under storage, also one on NFS or Lustre.

The version of a file is what its file system knows of it: modification and change time, inode and size.
Symbolic links are followed, wherever they lead; a walk does not enter a directory that it is in already. What
is neither a regular file nor a directory is not shown and not read, and what is being written is not shown.
"""

from __future__ import annotations

import errno
import os
import stat
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from forebay.errors import ConfigError, NotFound, from_os_error, stale, under_storage_error
from forebay.ufs._file_writer import FileStorageWriter, is_hidden
from forebay.ufs._walk import visit_in_parallel
from forebay.ufs.base import ObjectInfo, RangeBody, UnderStorage, check_options, refuse_embedded_credentials

_PAGE_ENTRIES: Final = 1_000
_SCHEME: Final = "file://"

# Where a listing is a matter of the processor, threads only take turns for the interpreter (100,000 files:
# 0.4 s by one, 0.9 s by eight); where it waits for a network, they wait together.
_LOCAL_FILE_SYSTEMS: Final = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "tmpfs", "xfs", "zfs"}
)
_MOUNTS: Final = "/proc/self/mountinfo"

# A directory to visit: its path, and device and inode of those that the walk went through to it.
_Branch = tuple[str, tuple[tuple[int, int], ...]]


class FileStorage(UnderStorage):
    """A folder of the local file system."""

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None) -> None:
        """Take ``file:///folder``, percent-encoded where a URI must be; there are no options.

        Raises: ConfigError (a host, a relative folder, any option).
        """
        check_options("file", options or {}, ())
        refuse_embedded_credentials(uri, "file URI")
        location = uri.removeprefix(_SCHEME).removeprefix("localhost")
        if not location.startswith("/"):
            raise ConfigError(
                f"{uri}: write {_SCHEME} and an absolute folder, for example file:///data/images"
            )
        self.root: Final = os.path.normpath(urllib.parse.unquote(location, errors="surrogateescape"))
        if "\0" in self.root:
            raise ConfigError(f"{uri}: a folder's name holds no NUL")

    def stat(self, path: str) -> ObjectInfo:
        """Describe a regular file or a directory."""
        place = self.place_of(path)
        try:
            status = os.stat(place)
        except OSError as error:
            raise self._translate(error, place) from error
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise under_storage_error(_SCHEME + place, "neither a regular file nor a directory")
        return _info(path, status)

    def list(self, path: str) -> Iterator[Sequence[ObjectInfo]]:
        """Yield regular files and directories, without broken links and what vanishes meanwhile."""
        page: list[ObjectInfo] = []
        for name, status in self._scan(path):
            page.append(_info(name, status))
            if len(page) == _PAGE_ENTRIES:
                yield page
                page = []
        yield page

    def walk(self, path: str, prefix_workers: int = 8) -> Iterator[Sequence[ObjectInfo]]:
        """Walk by as many threads as the file system is worth, entering no directory from within itself."""

        def visit(branch: _Branch) -> Iterator[tuple[Sequence[ObjectInfo], Sequence[_Branch]]]:
            try:
                yield from self._visit(branch)
            except NotFound:
                if branch[0] == path:
                    raise

        place = self.place_of(path)
        try:
            status = os.stat(place)
        except OSError as error:
            raise self._translate(error, place) from error
        workers = 1 if _file_system_type(status.st_dev) in _LOCAL_FILE_SYSTEMS else prefix_workers
        root: _Branch = (path, (_identity(status),))
        yield from visit_in_parallel([root], visit, workers)

    def _visit(self, branch: _Branch) -> Iterator[tuple[Sequence[ObjectInfo], Sequence[_Branch]]]:
        directory, ancestors = branch
        page: list[ObjectInfo] = []
        below: list[_Branch] = []
        for name, status in self._scan(directory):
            if not stat.S_ISDIR(status.st_mode):
                page.append(_info(name, status))
            elif (identity := _identity(status)) not in ancestors:
                below.append((name, (*ancestors, identity)))
            if len(page) == _PAGE_ENTRIES:
                yield page, below
                page, below = [], []
        yield page, below

    def _scan(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield path and status of the regular files and directories directly in a directory."""
        place = self.place_of(path)
        parent = f"{path}/" if path else ""
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    status = None if is_hidden(entry.name) else _status(entry)
                    if status and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                        yield parent + entry.name, status
        except OSError as error:
            raise self._translate(error, place) from error

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        """Open the file; a FIFO or device is refused, not waited for."""
        place = self.place_of(path)
        name = _SCHEME + place
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise self._translate(error, place) from error
        body = _FileBody(name, descriptor, path, offset, length)
        try:
            body.check(version)
        except BaseException:
            body.close()
            raise
        return body

    def writer(self) -> FileStorageWriter:
        """Return what writes beside and renames."""
        return FileStorageWriter(self)

    def close(self) -> None:
        """Nothing is kept open."""

    def describe(self, path: str, status: os.stat_result) -> ObjectInfo:
        """Describe what has this status."""
        return _info(path, status)

    def place_of(self, path: str) -> str:
        """Return where the file system has what lies at the path."""
        parts = path.split("/") if path else []
        # The caller has seen to this; the check is here because what it guards is the whole file system.
        assert not {"", ".", ".."} & set(parts), path
        return os.path.join(self.root, *parts)

    def _translate(self, error: OSError, place: str) -> OSError:
        """Translate, telling an absent file from an absent root, which is more likely a missing mount."""
        translated = from_os_error(error, _SCHEME + place)
        if isinstance(translated, FileNotFoundError) and place != self.root and not os.path.isdir(self.root):
            return under_storage_error(_SCHEME + place, f"the attached folder {self.root} is not there")
        return translated


class _FileBody(RangeBody):
    """A range of an open file, held to the version that it was opened with."""

    def __init__(self, name: str, descriptor: int, path: str, offset: int, length: int) -> None:
        self._name = name
        self._descriptor = descriptor
        self._path = path
        self.info = _info(path, os.fstat(descriptor))
        self.offset = offset
        self.length = max(min(length, self.info.size - offset), 0)
        self._next_offset = offset

    def check(self, version: str | None) -> None:
        """Refuse what is no regular file or has another version."""
        mode = os.fstat(self._descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", self._name)
        if not stat.S_ISREG(mode):
            raise under_storage_error(self._name, "not a regular file")
        if version is not None and version != self.info.version:
            raise stale(self._name, version, self.info.version)

    def readinto(self, buffer: memoryview, progress: Callable[[], None] = lambda: None) -> None:
        """Read by offset, then look whether the file is still the same."""
        done = 0
        try:
            while done < len(buffer) and (
                count := os.preadv(self._descriptor, [buffer[done:]], self._next_offset)
            ):
                done += count
                self._next_offset += count
                progress()
            after = _info(self._path, os.fstat(self._descriptor))
        except OSError as error:
            raise from_os_error(error, self._name) from error
        if after.version != self.info.version:
            raise stale(self._name, self.info.version, after.version)
        if done < len(buffer):
            raise under_storage_error(
                self._name, f"ended after {self._next_offset} of {self.info.size} bytes"
            )

    def close(self) -> None:
        """Close the file."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _info(path: str, status: os.stat_result) -> ObjectInfo:
    if stat.S_ISDIR(status.st_mode):
        return ObjectInfo(path, 0, status.st_mtime_ns, "", is_dir=True)
    version = f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}-{status.st_size}"
    return ObjectInfo(path, status.st_size, status.st_mtime_ns, version)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return the status of what an entry is or leads to, None for what leads nowhere or vanished."""
    try:
        return entry.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _file_system_type(device: int) -> str:
    """Return the type of the mounted file system with this device number, "" if it cannot be told."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                mount, _, file_system = line.partition(" - ")
                if mount.split()[2] == wanted:
                    return file_system.split()[0]
    except OSError:
        return ""
    return ""
