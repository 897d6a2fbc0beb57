"""Writing through fsspec, where a file system is known to show an object only when it is complete.

Most are not: a file that is written over SFTP, HDFS or SMB can be seen while it grows. Objects are sent from
memory by one call, and are as large as that allows.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from forebay.config import GIB
from forebay.errors import NotFound, already_there, under_storage_error
from forebay.ufs.base import ObjectInfo
from forebay.ufs.payload import Payload
from forebay.ufs.writer import Facts, StorageWriter, WriteJob, Written

if TYPE_CHECKING:
    from forebay.ufs.fsspec import FsspecStorage

# Those that show whole objects; of these, those whose copies are complete when the call returns; and those
# in which a directory is a thing of its own.
_WHOLE: Final = frozenset({"memory", "gs", "gcs", "abfs", "az"})
_COPYING: Final = frozenset({"memory", "gs", "gcs"})
_WITH_DIRECTORIES: Final = frozenset({"memory"})

_OBJECT_BYTES_MAX: Final = GIB


def is_writable(scheme: str) -> bool:
    """Say whether objects of this scheme can be written."""
    return scheme in _WHOLE


class FsspecStorageWriter(StorageWriter):
    """Changes what lies under a URI of a file system of fsspec."""

    def __init__(self, storage: FsspecStorage, scheme: str) -> None:
        """Change what this storage shows; the scheme is one that can be written."""
        self._storage: Final = storage
        self._scheme: Final = scheme

    def put(self, path: str, payload: Payload, job: WriteJob, *, exclusive: bool = False) -> Written:
        """Send it by one call, and ask what the object is then."""
        storage, uri = self._storage, self._storage.uri_of(path)
        if exclusive:
            raise under_storage_error(uri, f"{self._scheme}:// creates nothing exclusively", errno.EOPNOTSUPP)
        if payload.size > _OBJECT_BYTES_MAX:
            cause = f"{self._scheme}:// takes objects of up to {_OBJECT_BYTES_MAX} bytes"
            raise under_storage_error(uri, cause, errno.EFBIG)
        data = payload.read(0, payload.size)
        payload.check()
        job.run_all([(max(payload.size, 1), lambda: storage.send(path, data))])
        return Written(storage.stat(path), False)

    def exclusive_bytes_max(self, path: str, job: WriteJob) -> int:
        """Return 0: fsspec does not say which file systems look, and which let the server refuse."""
        return 0

    def delete(self, path: str) -> None:
        """Look what it is; a directory is removed where there are empty ones."""
        if not self._storage.stat(path).is_dir:
            self._storage.change(path, "rm_file")
            return
        if self._scheme not in _WITH_DIRECTORIES or any(map(len, self._storage.list(path))):
            cause = "is a directory that is not empty"
            raise under_storage_error(self._storage.uri_of(path), cause, errno.ENOTEMPTY)
        self._storage.change(path, "rmdir")

    def rename(self, path: str, target: str, job: WriteJob) -> ObjectInfo:
        """Copy, look at the copy, delete."""
        storage = self._storage
        if self._scheme not in _COPYING:
            cause = f"{self._scheme}:// copies behind one's back, so nothing can be renamed"
            raise under_storage_error(storage.uri_of(path), cause, errno.EOPNOTSUPP)
        info = storage.stat(path)
        if info.is_dir:
            raise IsADirectoryError(errno.EISDIR, "is a directory", storage.uri_of(path))
        storage.change(path, "cp_file", target)
        copied = storage.stat(target)
        if copied.size != info.size:
            cause = f"the copy has {copied.size} bytes, not {info.size}; nothing was deleted"
            raise under_storage_error(storage.uri_of(target), cause)
        storage.change(path, "rm_file")
        return copied

    def mkdir(self, path: str) -> None:
        """Make it where there are empty directories."""
        uri = self._storage.uri_of(path)
        if self._scheme not in _WITH_DIRECTORIES:
            cause = f"{self._scheme}:// has no empty directories; they come with the objects in them"
            raise under_storage_error(uri, cause, errno.EOPNOTSUPP)
        try:
            found = self._storage.stat(path)
        except NotFound:
            self._storage.change(path, "makedirs")
        else:
            if not found.is_dir:
                raise already_there(uri, "an object has this name")

    def undo(self, facts: Facts) -> None:
        """Nothing is left: what was not completed the service forgets by itself."""
