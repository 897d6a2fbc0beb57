"""Open files as fsspec's users expect them, over those of the cache."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from fsspec.spec import AbstractBufferedFile

from forebay.cache.file import CachedFile
from forebay.cache.writes.discarding import DiscardingFile
from forebay.cache.writes.file import WritableFile
from forebay.errors import NotAttached, not_found

if TYPE_CHECKING:
    from forebay.api.fsspec import ForebayFileSystem


_File = TypeVar("_File", CachedFile, WritableFile)


class _OverFile(io.BufferedIOBase, Generic[_File]):
    """A file over one of the cache, whose position it goes by."""

    def __init__(self, file: _File) -> None:
        super().__init__()
        self._file: Final[_File] = file

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position, which may lie behind the end, and return it. Raises: ValueError; OSError."""
        return self._file.seek(offset, whence)


class ReadFile(_OverFile[CachedFile]):
    """An object that is read: a CachedFile that pickles as its path and position, and knows its file system.

    Nothing of it is kept in heap but the block that was read last, which is a view. Another process reads
    the version that the object has when it is unpickled. Threads: one at a time.
    """

    mode: Final = "rb"

    def __init__(
        self, fs: ForebayFileSystem, path: str, file: CachedFile, details: Mapping[str, Any]
    ) -> None:
        """Read a file that was just opened; details are what ``info`` says of that version."""
        super().__init__(file)
        self.fs: Final = fs
        self.path: Final = path
        self.name: Final = path
        self.details: Final = dict(details)

    @property
    def size(self) -> int:
        """The object's size."""
        return self._file.size

    @property
    def full_name(self) -> str:
        """The path with its protocol."""
        name: str = self.fs.unstrip_protocol(self.path)
        return name

    def info(self) -> dict[str, Any]:
        """Return what ``info`` said of the version that is read."""
        return dict(self.details)

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return size bytes, or all up to the end; fewer only at the end. Raises: as ``cat_file``."""
        try:
            return self._file.read(size)
        except NotAttached as error:
            raise self._detached(error) from error

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to size bytes, as many as lie in one block; none only at the end."""
        try:
            return self._file.read1(size)
        except NotAttached as error:
            raise self._detached(error) from error

    def peek(self, size: int = 0, /) -> bytes:
        """Return some of the next bytes without moving on; none only at the end."""
        try:
            return self._file.peek(size)
        except NotAttached as error:
            raise self._detached(error) from error

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer and return how many bytes; fewer only at the end."""
        try:
            return self._file.readinto(buffer)
        except NotAttached as error:
            raise self._detached(error) from error

    def readinto1(self, buffer: Any, /) -> int:
        """Fill as much of the buffer as lies in one block, and return how many bytes."""
        try:
            return self._file.readinto1(buffer)
        except NotAttached as error:
            raise self._detached(error) from error

    def close(self) -> None:
        """Close; may be called twice."""
        self._file.close()
        super().close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as path and position. Raises: ValueError (it is closed)."""
        return _reopen, (self.fs, self.path, self.tell())

    def __repr__(self) -> str:
        """Name the object."""
        return f"<forebay ReadFile {self.path!r}{' (closed)' if self.closed else ''}>"

    def _detached(self, error: NotAttached) -> OSError:
        return not_found(self.path, str(error))


class BufferedReadFile(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """An object that is read through one of fsspec's own caches, for whoever asks for one by cache_type."""

    def __init__(self, file: ReadFile, block_size: int | None, cache_type: str, cache_options: Any) -> None:
        """Read that file; the cache is of this handle alone."""
        self._file: Final = file
        # "background" fetches in a thread of its own as well.
        self._lock: Final = threading.Lock()
        super().__init__(
            file.fs,
            file.path,
            block_size=block_size,
            cache_type=cache_type,
            cache_options=cache_options,
            size=file.size,
        )
        self.details = file.details

    def _fetch_range(self, start: int, end: int) -> bytes:
        with self._lock:
            self._file.seek(start)
            return self._file.read(end - start)

    def close(self) -> None:
        """Close; may be called twice."""
        super().close()
        self._file.close()


class DeferredFile(_OverFile[WritableFile]):
    """An object that is written within a transaction: ``commit`` writes it, and ``close`` does not.

    After an exception in its ``with`` block there is nothing to write.
    """

    def __init__(self, file: WritableFile) -> None:
        """Write to a file that was just opened."""
        super().__init__(file)
        self.name: Final = file.name
        self.mode: Final = file.mode

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:
        """Take all of the bytes; return how many. Raises: as WritableFile; ValueError (closed)."""
        if self.closed:
            raise ValueError("I/O operation on closed file.")
        return self._file.write(data)

    def commit(self) -> None:
        """Write the object. Raises: as ``Cache.put``."""
        self._file.close()

    def discard(self) -> None:
        """Leave the object as it is."""
        self._file.discard()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close, and after an exception leave the object as it is."""
        if kind is not None:
            self.discard()
        self.close()


class CompressedFile(DiscardingFile):
    """An object that is compressed on its way: ``close`` ends the compressed stream, and writes the object.

    fsspec's compressors leave the file beneath them open. Nothing is written after an exception in the
    ``with`` block, nor of a file that is just dropped.
    """

    def __init__(self, file: WritableFile | DeferredFile, compressor: Any) -> None:
        """Write to a compressor over a file that was just opened."""
        super().__init__()
        self.name: Final = file.name
        self.mode: Final = file.mode
        self._file: Final = file
        self._compressor: Final = compressor

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any, /) -> int:
        """Take all of the bytes; return how many. Raises: as WritableFile; ValueError (closed)."""
        count: int = self._compressor.write(data)
        return count

    def close(self) -> None:
        """Write the object; may be called twice. Raises: as WritableFile."""
        if self.closed:
            return
        try:
            self._compressor.close()
            self._file.close()
        except BaseException:
            self.discard()
            raise
        super().close()

    def discard(self) -> None:
        """Close, and leave the object as it is, unless it was closed before."""
        if self.closed:
            return
        with suppress(OSError, ValueError):
            # It would end its stream later on, and complain.
            self._compressor.close()
        self._file.discard()
        super().close()


def _reopen(fs: ForebayFileSystem, path: str, position: int) -> ReadFile:
    file: ReadFile = fs.open(path)
    file.seek(position)
    return file
