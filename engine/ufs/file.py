"""``file:///folder``: a local folder as under storage, also one on NFS or Lustre.

The version of a file is what its file system knows of it: modification and change time, inode and size.
Symbolic links are followed, wherever they lead. What is neither a regular file nor a directory is not shown
and not read.
"""

from __future__ import annotations

import errno
import os
import stat
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from forebay.errors import ConfigError, from_os_error, stale, under_storage_error
from forebay.ufs.base import ObjectInfo, RangeBody, UnderStorage, check_options

_PAGE_ENTRIES: Final = 1_000
_SCHEME: Final = "file://"


class FileStorage(UnderStorage):
    """A folder of the local file system."""

    def __init__(self, uri: str, options: Mapping[str, Any] | None = None) -> None:
        """Take ``file:///folder``, percent-encoded where a URI must be; there are no options.

        Raises: ConfigError (a host, a relative folder, any option).
        """
        check_options("file", options or {}, ())
        location = uri.removeprefix(_SCHEME).removeprefix("localhost")
        if not location.startswith("/"):
            raise ConfigError(
                f"{uri}: write {_SCHEME} and an absolute folder, for example file:///data/images"
            )
        self._root: Final = os.path.normpath(urllib.parse.unquote(location, errors="surrogateescape"))
        if "\0" in self._root:
            raise ConfigError(f"{uri}: a folder's name holds no NUL")

    def stat(self, path: str) -> ObjectInfo:
        """Describe a regular file or a directory."""
        place = self._place(path)
        try:
            status = os.stat(place)
        except OSError as error:
            raise self._translate(error, place) from error
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise under_storage_error(_SCHEME + place, "neither a regular file nor a directory")
        return _info(path, status)

    def list(self, path: str) -> Iterator[Sequence[ObjectInfo]]:
        """Yield regular files and directories, without broken links and what vanishes meanwhile."""
        place = self._place(path)
        page: list[ObjectInfo] = []
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if info := _entry_info(path, entry):
                        page.append(info)
                    if len(page) == _PAGE_ENTRIES:
                        yield page
                        page = []
        except OSError as error:
            raise self._translate(error, place) from error
        yield page

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        """Open the file; a FIFO or device is refused, not waited for."""
        place = self._place(path)
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

    def close(self) -> None:
        """Nothing is kept open."""

    def _place(self, path: str) -> str:
        parts = path.split("/") if path else []
        # The caller has seen to this; the check is here because what it guards is the whole file system.
        assert not {"", ".", ".."} & set(parts), path
        return os.path.join(self._root, *parts)

    def _translate(self, error: OSError, place: str) -> OSError:
        """Translate, telling an absent file from an absent root, which is more likely a missing mount."""
        translated = from_os_error(error, _SCHEME + place)
        if (
            isinstance(translated, FileNotFoundError)
            and place != self._root
            and not os.path.isdir(self._root)
        ):
            return under_storage_error(_SCHEME + place, f"the attached folder {self._root} is not there")
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
                count := os.preadv(self._descriptor, [buffer[done:]], self.offset + done)
            ):
                done += count
                progress()
            after = _info(self._path, os.fstat(self._descriptor))
        except OSError as error:
            raise from_os_error(error, self._name) from error
        if after.version != self.info.version:
            raise stale(self._name, self.info.version, after.version)
        if done < len(buffer):
            raise under_storage_error(
                self._name, f"ended after {self.offset + done} of {self.info.size} bytes"
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


def _entry_info(parent: str, entry: os.DirEntry[str]) -> ObjectInfo | None:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return None
    return _info(f"{parent}/{entry.name}" if parent else entry.name, status)
