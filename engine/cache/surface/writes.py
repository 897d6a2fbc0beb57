"""Writing: through to the under storage of datasets that are attached to be written."""

from __future__ import annotations

import errno
from typing import Any

from forebay.cache.status import FileStatus, status_of
from forebay.cache.surface.base import CacheBase, object_at, object_to_write
from forebay.cache.writes.data import put_data
from forebay.cache.writes.tree import delete_tree, rename_tree


class Writing(CacheBase):
    """The verbs that change what the under storage has.

    All raise PermissionError with EROFS where the dataset or the cache is not to be written, and
    UnderStorageError with EROFS or EOPNOTSUPP where the under storage cannot; nothing is changed then.
    """

    def put(self, path: str, data: Any, *, exclusive: bool = False) -> FileStatus:
        """Write an object, in place of what there is, and describe it.

        data: bytes, any other contiguous buffer, which is left alone meanwhile, or the pathlib.Path of a
        local file. It is at the under storage as a whole, and known to every process of the host, when this
        returns. Directories above it are made where the under storage has them. exclusive: only if there is
        no such object. After an exception the object is as it was, unless the under storage did not answer.
        Raises: FileExistsError (exclusive); IsADirectoryError; TypeError (other data); OSError (the local
        file: cannot be read, changes meanwhile).
        """
        runtime = self._runtime()
        attached, rest = object_to_write(runtime, path)
        entry = put_data(runtime.writes, attached, rest, data, exclusive=exclusive)
        return status_of(attached.record.name, entry)

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Remove an object, or an empty directory; recursive: a directory with all that is in it.

        That is no single act: it goes object by object, and after an exception some are gone. Raises:
        NotFound; UnderStorageError with ENOTEMPTY.
        """
        runtime = self._runtime()
        attached, rest = object_at(runtime, path)
        if recursive:
            delete_tree(runtime.writes, attached, rest)
        else:
            runtime.writes.delete(attached, rest)

    def rename(self, path: str, target: str) -> None:
        """Give an object or a directory another path in its dataset, in place of an object that is there.

        One act on file://. Elsewhere an object is copied by the storage and then deleted, and a directory
        goes object by object: after an exception it lies in part here and in part there, and renaming it
        again goes on. Raises: NotFound; OSError (EXDEV: another dataset; EINVAL: into itself); Stale.
        """
        runtime = self._runtime()
        attached, rest = object_at(runtime, path)
        other, new = object_at(runtime, target)
        if other.record.id != attached.record.id:
            raise OSError(errno.EXDEV, "renamed within one dataset only; copy and delete", path, None, target)
        runtime.writes.writer(other, new)
        if new.startswith(f"{rest}/"):
            raise OSError(errno.EINVAL, "a directory does not go into itself", path, None, target)
        rename_tree(runtime.writes, attached, rest, new)

    def mkdir(self, path: str) -> None:
        """Make a directory and those above it; one that is there is as good.

        Object stores have none: there it is an empty object that marks one, as consoles make it. Raises:
        FileExistsError (an object has that name).
        """
        runtime = self._runtime()
        attached, rest = object_at(runtime, path)
        runtime.writes.mkdir(attached, rest)
