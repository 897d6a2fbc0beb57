"""Writing and copying by ``forebay://``, to datasets that are attached to be written."""

from __future__ import annotations

import errno
import io
import os
from contextlib import suppress
from pathlib import Path
from shutil import SameFileError
from typing import Any, Final

from fsspec.asyn import sync
from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.compression import compr
from fsspec.core import get_compression
from fsspec.utils import isfilelike

from forebay.api._fsspec_base import finds_datasets
from forebay.api._fsspec_files import CompressedFile, DeferredFile
from forebay.api._fsspec_names import dataset_of, is_local_file, is_same
from forebay.api._fsspec_reads import Reads
from forebay.config import MIB

_COPIED_AT_A_TIME: Final = 4 * MIB


class Writes(Reads):
    """The verbs that write objects, here or on local disk.

    Those that change a dataset raise PermissionError where it is attached to be read only.
    """

    @finds_datasets
    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write bytes as an object, as a whole; mode "create": only if there is none.

        Raises: FileExistsError ("create").
        """
        place = self._object(path)
        self._refuse_existing(path, mode)
        self.cache.put(place.path, value, exclusive=mode == "create")

    @finds_datasets
    def put_file(
        self,
        lpath: str,
        rpath: str,
        callback: Callback = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        **kwargs: Any,
    ) -> None:
        """Write a local file as an object; of a directory make one. Raises: as ``pipe_file``."""
        if os.path.isdir(lpath):
            self.makedirs(rpath, exist_ok=True)
            return
        size = os.path.getsize(lpath)
        callback.set_size(size)
        place = self._object(rpath)
        self._refuse_existing(rpath, mode)
        self.cache.put(place.path, Path(lpath), exclusive=mode == "create")
        callback.relative_update(size)

    def _refuse_existing(self, path: str, mode: str) -> None:
        """Refuse what is known to be there, also where the storage could not; the rest it refuses itself."""
        if mode == "create" and self.exists(path):
            raise FileExistsError(errno.EEXIST, "is there already", path)

    @finds_datasets
    def get_file(
        self,
        rpath: str,
        lpath: Any,
        callback: Callback = DEFAULT_CALLBACK,
        outfile: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write an object to a local file, or to the open file outfile; of a directory make one.

        lpath may be an open file too. A local file that was begun and not completed is removed. Raises:
        shutil.SameFileError (it is the object itself); as ``Cache.open``.
        """
        if outfile is None and isfilelike(lpath):
            outfile = lpath
        if outfile is None and self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        path = self._object(rpath).path
        if outfile is None and is_local_file(self.cache, path, lpath):
            raise SameFileError(errno.EINVAL, "is the object itself", os.fspath(lpath), None, rpath)
        with self.cache.open(path) as source:
            callback.set_size(source.size)
            if outfile is not None:
                _copy(source, outfile, callback)
                return
            os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
            try:
                with open(lpath, "wb") as target:
                    _copy(source, target, callback)
            except BaseException:
                with suppress(OSError):
                    os.unlink(lpath)
                raise

    @finds_datasets
    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copy an object, which goes through the cache; of a directory make one."""
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
            return
        with (
            self.cache.open(self._object(path1).path) as source,
            self.cache.open(self._object(path2).path, "wb") as target,
        ):
            _copy(source, target, DEFAULT_CALLBACK)

    @finds_datasets
    def mv_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Rename an object; to another dataset it is copied and then deleted. Onto itself it stays."""
        source, target = self._object(path1).path, self._object(path2).path
        if dataset_of(source) == dataset_of(target):
            self.cache.rename(source, target)
        elif not is_same(self.cache, source, target):
            self.cp_file(path1, path2)
            self.rm_file(path1)

    def mv(
        self,
        path1: str | list[str],
        path2: str | list[str],
        recursive: bool = False,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Move objects as ``mv_file``, to where ``copy`` would put them; directories go once they are empty.

        Nothing is deleted but what was moved. Raises: IsADirectoryError (not recursive).
        """
        if self._strip_protocol(path1) == self._strip_protocol(path2):
            return
        if isinstance(path1, str) and not recursive and self.isdir(path1):
            raise IsADirectoryError(errno.EISDIR, "is a directory; give recursive=True", path1)
        left: list[str] = []
        self.copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error="raise", left=left)
        for directory in sorted(left, reverse=True):
            self._rmdir_if_empty(directory)

    def _move(self, path: str, target: str, left: list[str]) -> None:
        """Move an object; of a directory make another, and note it as one that is left."""
        if not self.isdir(path):
            self.mv_file(path, target)
            return
        self.makedirs(target, exist_ok=True)
        if not is_same(self.cache, self._object(path).path, self._object(target).path):
            left.append(path)

    def _rmdir_if_empty(self, path: str) -> None:
        try:
            self.rmdir(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise

    @finds_datasets
    def rm_file(self, path: str) -> None:
        """Remove an object. Raises: IsADirectoryError."""
        place = self._object(path)
        if self.cache.stat(place.path).is_dir:
            raise IsADirectoryError(errno.EISDIR, "is a directory; give recursive=True", path)
        self.cache.delete(place.path)

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove objects, with recursive=True directories and all below them, object by object.

        Raises: IsADirectoryError (not recursive).
        """
        if maxdepth is not None:
            for each in reversed(self.expand_path(path, recursive=recursive, maxdepth=maxdepth)):
                self._remove(each, recursive=False)
            return
        paths = self.expand_path(path)
        for each in _topmost(paths) if recursive else paths:
            self._remove(each, recursive=recursive)

    @finds_datasets
    def _remove(self, path: str, recursive: bool) -> None:
        if recursive:
            self.cache.delete(self._object(path).path, recursive=True)
        else:
            self.rm_file(path)

    @finds_datasets
    def rmdir(self, path: str) -> None:
        """Remove an empty directory. Raises: NotADirectoryError; OSError (ENOTEMPTY)."""
        place = self._object(path)
        if not self.cache.stat(place.path).is_dir:
            raise NotADirectoryError(errno.ENOTDIR, "is an object", path)
        self.cache.delete(place.path)

    @finds_datasets
    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a directory, with those above it; nothing where directories only come with what is in them.

        Raises: FileExistsError (there is such a path already); FileNotFoundError (no directory above it, and
        not create_parents).
        """
        place = self._object(path)
        if self.exists(path):
            raise FileExistsError(errno.EEXIST, "is there already", path)
        if not self.cache.has_directories(place.path):
            return
        if not create_parents and not self.isdir(self._parent(path)):
            raise FileNotFoundError(errno.ENOENT, "there is no directory above it", path)
        self.cache.mkdir(place.path)

    @finds_datasets
    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory as ``mkdir``. Raises: FileExistsError (an object; without exist_ok any path)."""
        if not exist_ok:
            self.mkdir(path)
            return
        place = self._object(path)
        if self.cache.has_directories(place.path) and not self.isdir(path):
            self.cache.mkdir(place.path)

    def open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: Any = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Open an object as fsspec has it; one that is compressed on its way is put by ``close`` as well."""
        kwargs |= {"block_size": block_size, "cache_options": cache_options}
        if "b" not in mode or "r" in mode:
            return super().open(path, mode, compression=compression, **kwargs)
        name = get_compression(path, compression)
        file = super().open(path, mode, **kwargs)
        return file if name is None else CompressedFile(file, compr[name](file, mode=mode[0]))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        cache_type: str | None = None,
        **kwargs: Any,
    ) -> io.IOBase:
        if mode == "rb":
            return self._open_to_read(path, block_size, cache_type, cache_options)
        return self._open_to_write(path, mode, autocommit)

    @finds_datasets
    def _open_to_write(self, path: str, mode: str, autocommit: bool) -> io.IOBase:
        if mode not in ("wb", "xb", "ab"):
            raise ValueError(
                f"mode {mode!r}: objects are opened as 'rb', 'wb', 'xb' or 'ab', and never changed in part"
            )
        where = self._object(path).path
        try:
            file = self.cache.open(where, mode)  # type: ignore[call-overload]
        except FileNotFoundError:
            if mode != "ab":
                raise
            # By the first who writes it, so that nobody's bytes are replaced.
            file = self.cache.open(where, "xb")
        return file if autocommit else DeferredFile(file)

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Write objects to local files, some at a time; as fsspec has it."""
        return sync(self.loop, self._get, *args, **kwargs)

    def put(self, *args: Any, **kwargs: Any) -> Any:
        """Write local files as objects, some at a time; as fsspec has it."""
        return sync(self.loop, self._put, *args, **kwargs)

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        """Copy objects, some at a time; as fsspec has it."""
        return sync(self.loop, self._copy, *args, **kwargs)

    def pipe(self, path: str | dict[str, Any], value: Any = None, **kwargs: Any) -> None:
        """Write bytes as an object, or by path as several, some at a time."""
        sync(self.loop, self._pipe, path, value, **kwargs)

    async def _pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        await self._in_thread(self.pipe_file, path, value, mode)

    async def _put_file(self, lpath: str, rpath: str, **kwargs: Any) -> None:
        await self._in_thread(self.put_file, lpath, rpath, **kwargs)

    async def _get_file(self, rpath: str, lpath: str, **kwargs: Any) -> None:
        await self._in_thread(self.get_file, rpath, lpath, **kwargs)

    async def _cp_file(self, path1: str, path2: str, left: list[str] | None = None, **kwargs: Any) -> None:
        if left is None:
            await self._in_thread(self.cp_file, path1, path2)
        else:
            await self._in_thread(self._move, path1, path2, left)

    async def _mv_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        await self._in_thread(self.mv_file, path1, path2)

    async def _rm_file(self, path: str, **kwargs: Any) -> None:
        await self._in_thread(self.rm_file, path)

    async def _rm(
        self,
        path: str | list[str],
        recursive: bool = False,
        batch_size: int | None = None,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        await self._in_thread(self.rm, path, recursive, maxdepth)

    async def _mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        await self._in_thread(self.mkdir, path, create_parents)

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        await self._in_thread(self.makedirs, path, exist_ok)


def _topmost(paths: list[str]) -> list[str]:
    """Return the paths that lie below none of the others."""
    found: dict[str, None] = {}
    # A directory comes before what is in it.
    for path in sorted(paths):
        parts = path.split("/")
        if not any("/".join(parts[:count]) in found for count in range(1, len(parts))):
            found[path] = None
    return list(found)


def _copy(source: Any, target: Any, callback: Callback) -> None:
    """Copy what is left of one open file to another, in pieces."""
    while data := source.read(_COPIED_AT_A_TIME):
        target.write(data)
        callback.relative_update(len(data))
