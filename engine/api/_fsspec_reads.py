"""Looking and reading by ``forebay://``."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from glob import has_magic
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from forebay.api._fsspec_base import Base, described, finds_datasets, side_by_side
from forebay.api._fsspec_files import BufferedReadFile, ReadFile
from forebay.cache.copies import copies_of
from forebay.config import KIB, MIB

if TYPE_CHECKING:
    from forebay.cache import View

# Objects that are looked up and fetched at a time, and how many views are held to be copied together: the
# more new memory is asked for at once, the more of it comes in huge pages.
_AT_ONCE: Final = 128
_HELD_MAX: Final = 512
_HELD_BYTES: Final = 48 * MIB
# Copying so much takes less time than a turn of a thread.
_COPIED_IN_LOOP: Final = 256 * KIB
_NO_SECOND_CACHE: Final = ("none", None)


class Reads(Base):
    """The verbs that change nothing."""

    @finds_datasets
    def info(self, path: str, refresh: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Describe an object or a directory: name, size and type, of an object mtime and version as well.

        refresh: ask the under storage anew, as after ``invalidate_cache``.
        """
        place = self._place(path)
        if refresh and place.path:
            self.invalidate_cache(path)
        if not place.path:
            return {"name": "", "size": 0, "type": "directory"}
        return described(place, self.cache.stat(place.path))

    @finds_datasets
    def ls(self, path: str, detail: bool = True, refresh: bool = False, **kwargs: Any) -> list[Any]:
        """Describe, or name, what lies in a directory; of an object itself. refresh: as for ``info``."""
        place = self._place(path)
        if refresh and place.path:
            self.invalidate_cache(path)
        if not place.path:
            found = [
                {"name": dataset.name, "size": 0, "type": "directory"} for dataset in self.cache.datasets()
            ]
        else:
            try:
                found = [described(place, status) for status in self.cache.scandir(place.path)]
            except NotADirectoryError:
                found = [described(place, self.cache.stat(place.path))]
        return found if detail else [each["name"] for each in found]

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: str | Callable[[OSError], object] | None = None,
        detail: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[str, Any, Any]]:
        """Yield directory, directories in it and objects, and go on into those that are left, as os.walk.

        on_error: by default what is absent is left out, and all else raised: a storage that does not answer
        is not an empty directory. "omit" and "raise" do so whatever it is, and a function is told of it.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        root = self._strip_protocol(path)
        try:
            listing = self.ls(root, detail=True, **kwargs)
        except OSError as error:
            if on_error == "raise" or (on_error is None and not isinstance(error, FileNotFoundError)):
                raise
            if callable(on_error):
                on_error(error)
            return
        # An object is listed as itself, and has no name there.
        named = [("" if each["name"] == root else each["name"].rpartition("/")[2], each) for each in listing]
        below = {name: each for name, each in named if each["type"] == "directory"}
        objects = {name: each for name, each in named if each["type"] != "directory"}
        found = (root, dict(below), objects) if detail else (root, list(below), list(objects))
        if topdown:
            yield found
        for name in list(found[1]) if maxdepth != 1 else ():
            depth = None if maxdepth is None else maxdepth - 1
            yield from self.walk(below[name]["name"], depth, topdown, on_error, detail, **kwargs)
        if not topdown:
            yield found

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Say whether there is such an object or directory. Raises: all that ``info`` does but absence."""
        return self._type_of(path) is not None

    def isfile(self, path: str) -> bool:
        """Say whether it is an object. Raises: as ``exists``."""
        return self._type_of(path) == "file"

    def isdir(self, path: str) -> bool:
        """Say whether it is a directory. Raises: as ``exists``."""
        return self._type_of(path) == "directory"

    def _type_of(self, path: str) -> str | None:
        try:
            kind: str = self.info(path)["type"]
        except FileNotFoundError:
            return None
        return kind

    def sizes(self, paths: list[str]) -> list[int]:
        """Return the sizes of objects, asked for together. Raises: as ``info``."""
        return side_by_side([partial(self.size, path) for path in paths])

    def ukey(self, path: str) -> str:
        """Return the version of an object, which is another when its bytes are. Raises: IsADirectoryError."""
        return str(self._object_info(path)["version"])

    def checksum(self, path: str) -> int:
        """Return the version of an object as a number. Raises: IsADirectoryError."""
        return int.from_bytes(
            blake2b(self.ukey(path).encode("utf-8", "surrogateescape"), digest_size=8).digest()
        )

    def modified(self, path: str) -> datetime:
        """Return when the under storage says that an object was changed. Raises: IsADirectoryError."""
        return datetime.fromtimestamp(self._object_info(path)["mtime"], UTC)

    def created(self, path: str) -> datetime:
        """Return as ``modified``: an object is made anew with each version."""
        return self.modified(path)

    def _object_info(self, path: str) -> dict[str, Any]:
        info = self.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        return info

    @finds_datasets
    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return the bytes of an object, or those from start to end; negative ones count from its end."""
        where, offset, length = self._range(path, start, end)
        try:
            with self.cache.read(where, offset, length) as view:
                return bytes(view)
        except ValueError:
            # Longer than what is gathered into one view, or else the same is wrong here.
            with self.cache.open(where) as file:
                file.seek(offset)
                return file.read(length)

    def _range(self, path: str, start: int | None, end: int | None) -> tuple[str, int, int | None]:
        """Return where an object lies in the cache, and offset and length as fsspec's users mean them."""
        where = self._where(path)
        if (start is not None and start < 0) or (end is not None and end < 0):
            start, end, _ = slice(start, end).indices(self.cache.stat(where).size)
        offset = start or 0
        return where, offset, None if end is None else max(end - offset, 0)

    def cat(
        self,
        path: str | os.PathLike[str] | list[str],
        recursive: bool = False,
        on_error: str = "raise",
        **kwargs: Any,
    ) -> Any:
        """Return the bytes of an object, or by path those of several: a list, a pattern, all of a directory.

        on_error: raise, omit what cannot be read, or return the exceptions in its place.
        """
        paths: list[str]
        if isinstance(path, list) and not recursive and not any(map(has_magic, path)):
            paths = list(dict.fromkeys(self._strip_protocol(path)))
        else:
            paths = self.expand_path(path, recursive=recursive)
        if recursive:
            paths = [each for each in paths if not self.isdir(each)]
        if kwargs.keys() & {"start", "end"}:
            count = len(paths)
            starts, ends = [kwargs.get("start")] * count, [kwargs.get("end")] * count
            found: list[Any] = self.cat_ranges(paths, starts, ends)
        else:
            found = list(self._whole(paths))
        failed = [each for each in found if isinstance(each, Exception)]
        if failed and on_error == "raise":
            raise failed[0]
        if isinstance(path, str | os.PathLike) and paths == [self._strip_protocol(path)]:
            return found[0]
        return {
            name: data
            for name, data in zip(paths, found, strict=True)
            if on_error != "omit" or not isinstance(data, Exception)
        }

    def _whole(self, paths: Sequence[str]) -> Iterator[bytes | Exception]:
        """Yield the bytes of each object, or why there are none; what is missing is fetched together."""
        held: list[View] = []
        held_bytes = 0
        for first in range(0, len(paths), _AT_ONCE):
            batch = paths[first : first + _AT_ONCE]
            try:
                where = [self._where(path) for path in batch]
                views = [self.cache.peek(each) for each in where]
                missing = [each for each, view in zip(where, views, strict=True) if view is None]
                others = iter(self.cache.read_many(missing) if missing else ())
            except (OSError, LookupError, ValueError):
                # One of them cannot be read: each for itself, to say which.
                yield from copies_of(held)
                held, held_bytes = [], 0
                yield from self._cat_each([(path, None, None) for path in batch])
                continue
            found = [next(others) if view is None else view for view in views]
            held += found
            held_bytes += sum(map(len, found))
            if len(held) >= _HELD_MAX or held_bytes >= _HELD_BYTES:
                yield from copies_of(held)
                held, held_bytes = [], 0
        yield from copies_of(held)

    def _cat_each(self, asked: Sequence[tuple[str, int | None, int | None]]) -> list[bytes | Exception]:
        """Return the bytes of each range, or why there are none."""
        return side_by_side([partial(self._cat_or_error, *each) for each in asked])

    def _cat_or_error(self, path: str, start: int | None, end: int | None) -> bytes | Exception:
        try:
            return self.cat_file(path, start, end)
        except (OSError, LookupError, ValueError) as error:
            return error

    def cat_ranges(
        self,
        paths: list[str],
        starts: int | Iterable[int | None] | None,
        ends: int | Iterable[int | None] | None,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """Return the bytes of ranges of objects, in order; starts or ends may be one figure for all.

        on_error: return the exceptions in their places, or raise the first. max_gap changes nothing: ranges
        that share a block are read together whatever is between them.
        """
        asked = list(zip(paths, _each(starts, paths), _each(ends, paths), strict=True))
        try:
            if any((start or 0) < 0 or (end or 0) < 0 for _, start, end in asked):
                # Asks for sizes.
                ranges = side_by_side([partial(self._range, *each) for each in asked])
            else:
                ranges = [self._range(*each) for each in asked]
            found: list[Any] = list(copies_of(self.cache.read_ranges(ranges)))
        except (OSError, LookupError, ValueError):
            # One of them cannot be read: each for itself, to say which.
            found = self._cat_each(asked)
        failed = [each for each in found if isinstance(each, Exception)]
        if failed and on_error != "return":
            raise failed[0]
        return found

    @finds_datasets
    def invalidate_cache(self, path: str | None = None) -> None:
        """Forget what is known of objects at and below a path, so that the under storage is asked anew.

        Bytes stay: they are good again for versions that are found again. Without a path that is so for all
        datasets that may change.
        """
        if path is not None and (place := self._place(path)).path:
            self.cache.free(place.path, data=False, metadata=True)
            return
        for dataset in self.cache.datasets():
            if dataset.max_age is not None:
                self.cache.free(dataset.name, data=False, metadata=True)

    @finds_datasets
    def _open_to_read(
        self, path: str, block_size: int | None, cache_type: str | None, cache_options: Any
    ) -> io.IOBase:
        """Open an object, with none of fsspec's caches in between unless one is asked for."""
        place = self._object(path)
        opened = self.cache.open(place.path)
        details = {
            "name": self._strip_protocol(path),
            "size": opened.size,
            "type": "file",
            "version": opened.version,
        }
        file = ReadFile(self, details["name"], opened, details)
        if cache_type in _NO_SECOND_CACHE:
            return file
        return BufferedReadFile(file, block_size, cache_type, cache_options)

    async def _info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return await self._in_thread(self.info, path, **kwargs)

    async def _ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        return await self._in_thread(self.ls, path, detail, **kwargs)

    async def _walk(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        walk = self.walk(path, maxdepth, **kwargs)
        while (found := await self._in_thread(next, walk, None)) is not None:
            yield found

    async def _find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> Any:
        return await self._in_thread(self.find, path, maxdepth, withdirs, **kwargs)

    async def _exists(self, path: str, **kwargs: Any) -> bool:
        return await self._in_thread(self.exists, path)

    async def _isfile(self, path: str) -> bool:
        return await self._in_thread(self.isfile, path)

    async def _isdir(self, path: str) -> bool:
        return await self._in_thread(self.isdir, path)

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        # Opening the cache would hold the loop up.
        if start is None and end is None and self._opened is not None:
            with suppress(OSError):
                view = self._opened.peek(self._where(path), bytes_max=_COPIED_IN_LOOP)
                if view is not None:
                    return bytes(view)
        return await self._in_thread(self.cat_file, path, start, end)

    async def _cat(
        self, path: str | list[str], recursive: bool = False, on_error: str = "raise", **kwargs: Any
    ) -> Any:
        kwargs.pop("batch_size", None)
        return await self._in_thread(self.cat, path, recursive, on_error, **kwargs)

    async def _cat_ranges(
        self,
        paths: list[str],
        starts: int | Iterable[int | None] | None,
        ends: int | Iterable[int | None] | None,
        max_gap: int | None = None,
        batch_size: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        return await self._in_thread(self.cat_ranges, paths, starts, ends, max_gap, on_error)


def _each(figures: int | Iterable[int | None] | None, paths: Sequence[str]) -> list[int | None]:
    return list(figures) if isinstance(figures, Iterable) else [figures] * len(paths)
