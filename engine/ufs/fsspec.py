"""Everything else that fsspec speaks: ``gs://``, ``abfs://``, ``hdfs://``, ``sftp://``, ``memory://`` ...

One adapter over the calls that every file system of fsspec has: info, ls, cat_file. Nothing that they answer
is taken on trust: a range must have the asked length, and the object must be of one version before and after
it was read. File systems are made anew for each process, without fsspec's caches of instances and listings.
``http://`` has more to prove it by, see _fsspec_http.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from fsspec.asyn import sync
from fsspec.dircache import DirCache
from fsspec.spec import AbstractFileSystem

from forebay.errors import NotFound, not_found, stale, under_storage_error
from forebay.ufs._fsspec_errors import delay_s, is_transient, raise_translated
from forebay.ufs._fsspec_http import HttpStorage
from forebay.ufs._fsspec_info import described, is_tracked
from forebay.ufs._fsspec_options import Target, is_known, target_of
from forebay.ufs._fsspec_writer import FsspecStorageWriter, is_writable
from forebay.ufs._loop import loop_of_process
from forebay.ufs._stop import Stop
from forebay.ufs._walk import visit_in_parallel
from forebay.ufs.base import ObjectInfo, RangeBody, RequestKind, UnderStorage

__all__ = ["FsspecStorage", "is_known", "open_fsspec"]

_PAGE_ENTRIES: Final = 1_000
# What one cat_file brings at most: it stands in memory beside the reader's buffer, and has one deadline.
_STEP_BYTES: Final = 4 << 20
# A write slower than this for all its length has failed.
_BYTES_A_SECOND_MIN: Final = 64 << 10
# A file system that is not asynchronous mostly has one connection, for one thread at a time.
_INSTANCES_MAX: Final = 8
# What a call counts as, however many requests the file system makes of it.
_KINDS: Final[Mapping[str, RequestKind]] = {
    "cat_file": "gets",
    "cp_file": "puts",
    "info": "heads",
    "ls": "lists",
    "makedirs": "puts",
    "pipe_file": "puts",
    "rm_file": "deletes",
    "rmdir": "deletes",
    "ukey": "heads",
}
# Errors that a sound connection brings.
_ANSWERS: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


def open_fsspec(uri: str, options: Mapping[str, Any]) -> UnderStorage:
    """Make the storage for a URI whose scheme fsspec knows. Raises: ConfigError."""
    target = target_of(uri, options)
    return HttpStorage(target) if target.scheme in ("http", "https") else FsspecStorage(target)


class FsspecStorage(UnderStorage):
    """What lies under a URI of a file system of fsspec."""

    def __init__(self, target: Target) -> None:
        """Use a checked URI; connects to nothing."""
        self._target: Final = target
        self._systems: Final = _FileSystems(target)
        self._stop: Final = Stop()
        self._has_ukey: Final = target.file_system.ukey is not AbstractFileSystem.ukey

    def stat(self, path: str) -> ObjectInfo:
        """Ask for the description of the file or directory."""
        raw = self._call(path, "info", self._full(path))
        info = self._describe(path, raw)
        if info is None:
            raise under_storage_error(self.uri_of(path), "neither a directory nor a file with a known size")
        return info

    def list(self, path: str) -> Iterator[Sequence[ObjectInfo]]:
        """List one level in one call, for fsspec knows no pages."""
        page: list[ObjectInfo] = []
        for info, _ in self._entries(path):
            page.append(info)
            if len(page) == _PAGE_ENTRIES:
                yield page
                page = []
        yield page

    def walk(self, path: str, prefix_workers: int = 8) -> Iterator[Sequence[ObjectInfo]]:
        """Walk by listings, into no link: without inodes nothing else would end a walk in circles."""

        def visit(directory: str) -> Iterator[tuple[Sequence[ObjectInfo], Sequence[str]]]:
            page: list[ObjectInfo] = []
            try:
                for info, is_link in self._entries(directory):
                    if not info.is_dir:
                        page.append(info)
                    elif not is_link:
                        yield [], [info.path]
                    if len(page) == _PAGE_ENTRIES:
                        yield page, []
                        page = []
            except NotFound:
                if directory == path:
                    raise
            yield page, []

        return visit_in_parallel([path], visit, prefix_workers)

    def _entries(self, path: str) -> Iterator[tuple[ObjectInfo, bool]]:
        """Yield what lies directly in a directory, and of each whether it is a link."""
        full = self._full(path)
        # With details, which not every file system gives unasked.
        entries = self._call(path, "ls", full, True)
        if [str(entry["name"]).strip("/") for entry in entries] == [full.strip("/")]:
            if entries[0].get("type") != "directory":
                raise not_found(self.uri_of(path), "is not a directory")
            return
        parent = f"{path}/" if path else ""
        for entry in entries:
            full_name = str(entry["name"]).rstrip("/")
            name = full_name.rpartition("/")[2]
            if full_name.strip("/") == full.strip("/") or name in ("", ".", "..") or "\0" in name:
                continue
            if info := self._listed(parent + name, entry):
                yield info, entry.get("type") == "link"

    def _listed(self, path: str, entry: Mapping[str, Any]) -> ObjectInfo | None:
        """Describe an entry of a listing, asking anew for one that says too little: a link, no size."""
        if entry.get("type") in ("file", "directory") and (info := self._describe(path, entry)):
            return info
        if entry.get("type") not in ("file", "link"):
            return None
        try:
            return self.stat(path)
        except NotFound:
            return None

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        """Look which version there is; it is looked at again when the bytes have come."""
        info = self.stat(path)
        if info.is_dir:
            raise IsADirectoryError(errno.EISDIR, "is a directory", self.uri_of(path))
        self._require(path, version, info)
        return _FsspecBody(self, info, offset, max(min(length, info.size - offset), 0))

    def fetch(self, path: str, start: int, end: int) -> bytes:
        """Return what the file system gives for a range, of whatever length that is."""
        return bytes(self._call(path, "cat_file", self._full(path), start, end))

    def confirm(self, info: ObjectInfo) -> None:
        """Look whether the object is still of that version. Raises: Stale, or as stat."""
        self._require(info.path, info.version, self.stat(info.path))

    def writer(self) -> FsspecStorageWriter | None:
        """Return what writes, for file systems that show whole objects."""
        scheme = self._target.scheme
        return FsspecStorageWriter(self, scheme) if is_writable(scheme) else None

    def send(self, path: str, data: bytes) -> None:
        """Write an object by one call, which has time for its bytes."""
        timeout_s = self._target.timeout_s + len(data) / _BYTES_A_SECOND_MIN
        self._call(path, "pipe_file", self._full(path), data, timeout_s=timeout_s)

    def change(self, path: str, operation: str, target: str | None = None) -> None:
        """Call an operation on an object or directory, with a second path if there is one."""
        self._call(path, operation, self._full(path), *([] if target is None else [self._full(target)]))

    def close(self) -> None:
        """Let go of the file systems, and have nothing tried again."""
        self._stop.set()
        self._systems.close()

    def uri_of(self, path: str) -> str:
        """Return the full URI of a path, for messages."""
        return f"{self._target.uri}/{path}" if path else self._target.uri

    def _full(self, path: str) -> str:
        """Return the path as the file system knows it."""
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            raise not_found(self.uri_of(path), "no object can have this name: it is not UTF-8") from None
        root = self._target.root
        if not path:
            return root
        marker = self._target.file_system.root_marker
        return f"{root.rstrip('/')}/{path}" if root.strip("/") else f"{marker}{path}"

    def _describe(self, path: str, raw: Mapping[str, Any]) -> ObjectInfo | None:
        ukey = ""
        if self._has_ukey and raw.get("type") == "file" and not is_tracked(raw):
            ukey = str(self._call(path, "ukey", self._full(path)))
        return described(path, raw, ukey)

    def _require(self, path: str, version: str | None, info: ObjectInfo) -> None:
        if version is not None and info.version != version:
            raise stale(self.uri_of(path), version, info.version)

    def _call(self, path: str, operation: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Ask as often as the options allow; an absent root is told from an absent object."""
        try:
            return self._attempt(path, operation, *arguments, timeout_s=timeout_s)
        except NotFound:
            if path and not self._root_is_there():
                cause = "the attached folder or bucket is not there"
                raise under_storage_error(self.uri_of(path), cause, errno.ENXIO) from None
            raise

    def _root_is_there(self) -> bool:
        try:
            self._attempt("", "info", self._target.root)
        except NotFound:
            return False
        return True

    def _attempt(self, path: str, operation: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        uri = self.uri_of(path)
        for attempt in range(1, self._target.attempts + 1):
            self._stop.check(uri)
            self.on_request(_KINDS[operation])
            try:
                return self._systems.call(operation, *arguments, timeout_s=timeout_s)
            except Exception as error:  # noqa: BLE001  (a file system raises what it likes; it goes on as ours)
                if attempt == self._target.attempts or not is_transient(error):
                    raise_translated(error, uri)
            self._stop.pause(delay_s(attempt), uri)
        raise AssertionError("the last attempt returns or raises")


class _FileSystems:
    """The file systems of one storage: one for all threads if it is asynchronous, else a few, lent out."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._changed = threading.Condition()
        self._shared: Any = None
        self._idle: list[Any] = []
        self._lent_count = 0

    def call(self, operation: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Call one operation; an asynchronous one has the options' deadline, if not one of its own."""
        if self._target.file_system.async_impl and operation != "ukey":
            system = self._for_all()
            method = getattr(system, f"_{operation}")
            return sync(system.loop, method, *arguments, timeout=timeout_s or self._target.timeout_s)
        with self._borrowed() as system:
            return getattr(system, operation)(*arguments)

    def close(self) -> None:
        """Forget those that nobody uses; their own finalizers close them."""
        with self._changed:
            self._shared = None
            self._idle.clear()

    def _for_all(self) -> Any:
        with self._changed:
            if self._shared is None:
                self._shared = self._make(loop=loop_of_process())
            return self._shared

    @contextmanager
    def _borrowed(self) -> Iterator[Any]:
        with self._changed:
            self._changed.wait_for(lambda: self._lent_count < _INSTANCES_MAX)
            self._lent_count += 1
            system = self._idle.pop() if self._idle else None
        try:
            system = system or self._make()
            yield system
        except _ANSWERS:
            raise
        except BaseException:
            # What broke off in the middle may have left its connection in any state.
            system = None
            raise
        finally:
            with self._changed:
                self._lent_count -= 1
                if system is not None:
                    self._idle.append(system)
                self._changed.notify()

    def _make(self, **keywords: Any) -> Any:
        system = self._target.file_system(**self._target.keywords, **keywords, skip_instance_cache=True)
        # Freshness is the cache's affair: what is asked for here is asked of the storage.
        system.dircache = DirCache(use_listings_cache=False)
        return system


class _FsspecBody(RangeBody):
    """A range that is fetched in steps, of an object whose version is looked at afterwards.

    So all of it is fetched before any of it is given.
    """

    def __init__(self, storage: FsspecStorage, info: ObjectInfo, offset: int, length: int) -> None:
        self._storage = storage
        self.info = info
        self.offset = offset
        self.length = length
        self._left: memoryview | None = None

    def readinto(self, buffer: memoryview, progress: Callable[[], None] = lambda: None) -> None:
        """Fill the buffer, without a copy of its own if that is all of the range."""
        if self._left is None and len(buffer) == self.length:
            self._fetch(buffer, progress)
            self._left = buffer[:0]
        else:
            buffer[:] = self.take(len(buffer), progress)

    def take(self, length: int, progress: Callable[[], None] = lambda: None) -> memoryview:
        """Return the next bytes of what was fetched."""
        if self._left is None:
            fetched = memoryview(bytearray(self.length))
            self._fetch(fetched, progress)
            self._left = fetched
        taken, self._left = self._left[:length], self._left[length:]
        return taken

    def pieces(self, length: int, progress: Callable[[], None] = lambda: None) -> Iterator[memoryview]:
        """Yield all of it at once, for it is there."""
        yield self.take(length, progress)

    def _fetch(self, buffer: memoryview, progress: Callable[[], None]) -> None:
        """Fetch step by step, then look whether the object is still the same."""
        for done in range(0, len(buffer), _STEP_BYTES):
            part = buffer[done : done + _STEP_BYTES]
            start = self.offset + done
            data = self._storage.fetch(self.info.path, start, start + len(part))
            if len(data) != len(part):
                # Most likely it was replaced by a shorter one.
                self._storage.confirm(self.info)
                cause = f"asked for bytes {start}-{start + len(part) - 1}, got {len(data)} bytes"
                raise under_storage_error(self._storage.uri_of(self.info.path), cause)
            part[:] = data
            progress()
        if self.length:
            self._storage.confirm(self.info)

    def close(self) -> None:
        """Nothing is held between two steps."""
