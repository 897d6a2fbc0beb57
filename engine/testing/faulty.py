"""An under storage in memory that fails by script, for tests of what stands above it."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from forebay.errors import already_there, not_found, stale, under_storage_error
from forebay.ufs import ObjectInfo, RangeBody, StorageFactory, UnderStorage
from forebay.ufs.payload import Payload
from forebay.ufs.writer import Facts, StorageWriter, WriteJob, Written

Operation = Literal["stat", "list", "read_range", "readinto", "put", "delete", "rename"]
# An exception to raise, something to do first (wait, change an object), or nothing out of the ordinary.
Outcome = Exception | Callable[[], object] | None


class FaultyStorage(UnderStorage):
    """Objects in a dictionary, a count of the calls, and a script of what goes wrong. Threads: any."""

    def __init__(self, objects: Mapping[str, bytes] | None = None) -> None:
        """Begin with these objects, by path, and nothing going wrong."""
        self._lock: Final = threading.Lock()
        self._objects: dict[str, tuple[bytes, str]] = {}
        self.undone: Final[list[Facts]] = []
        self._scripts: dict[Operation, deque[Outcome]] = defaultdict(deque)
        self._puts = 0
        self.calls: Final[Counter[Operation]] = Counter()
        for path, data in (objects or {}).items():
            self.put(path, data)

    def put(self, path: str, data: bytes) -> ObjectInfo:
        """Write an object under a new version."""
        with self._lock:
            self._puts += 1
            self._objects[path] = (bytes(data), f"v{self._puts}")
            return ObjectInfo(path, len(data), 0, f"v{self._puts}")

    def remove(self, path: str) -> bytes:
        """Remove an object, and return its bytes."""
        with self._lock:
            return self._objects.pop(path)[0]

    def has(self, path: str, *, below: bool = False) -> bool:
        """Say whether there is such an object, or one below the path; counts as no call."""
        with self._lock:
            return (
                any(name.startswith(f"{path}/") for name in self._objects) if below else path in self._objects
            )

    def content(self, path: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and version, None if there is none; counts as no call."""
        with self._lock:
            return self._objects.get(path)

    def replace(self, objects: Mapping[str, tuple[bytes, str]]) -> None:
        """Let these be all objects, each with its version."""
        with self._lock:
            self._objects = dict(objects)

    def script(self, operation: Operation, *outcomes: Outcome) -> None:
        """Let the next calls of an operation end so, in this order, and those after them as they should."""
        with self._lock:
            self._scripts[operation].extend(outcomes)

    def schemes(self, scheme: str = "faulty") -> dict[str, StorageFactory]:
        """Return a table of under storages with this one in it, whatever the rest of the URI."""

        def factory(uri: str, options: Mapping[str, Any]) -> UnderStorage:
            return self

        return {scheme: factory}

    def act(self, operation: Operation) -> None:
        """Count a call and do what the script has for it."""
        with self._lock:
            self.calls[operation] += 1
            script = self._scripts[operation]
            outcome = script.popleft() if script else None
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is not None:
            outcome()

    def stat(self, path: str) -> ObjectInfo:
        """Describe an object or a directory."""
        self.act("stat")
        with self._lock:
            found = self._objects.get(path)
            is_dir = not path or any(name.startswith(f"{path}/") for name in self._objects)
        if found is not None:
            return ObjectInfo(path, len(found[0]), 0, found[1])
        if is_dir:
            return ObjectInfo(path, 0, 0, "", is_dir=True)
        raise not_found(path)

    def list(self, path: str) -> Iterator[Sequence[ObjectInfo]]:
        """Yield one page."""
        self.act("list")
        prefix = f"{path}/" if path else ""
        with self._lock:
            objects = {name: value for name, value in self._objects.items() if name.startswith(prefix)}
        if path and not objects:
            raise not_found(path)
        directories = {
            name[len(prefix) :].partition("/")[0] for name in objects if "/" in name[len(prefix) :]
        }
        yield [ObjectInfo(prefix + name, 0, 0, "", is_dir=True) for name in sorted(directories)]
        yield [
            ObjectInfo(name, len(data), 0, version)
            for name, (data, version) in objects.items()
            if "/" not in name[len(prefix) :]
        ]

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        """Begin to read what the object is now."""
        self.act("read_range")
        with self._lock:
            found = self._objects.get(path)
            is_dir = not path or any(name.startswith(f"{path}/") for name in self._objects)
        if found is None:
            if is_dir:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            raise not_found(path)
        data, present = found
        if version is not None and version != present:
            raise stale(path, version, present)
        info = ObjectInfo(path, len(data), 0, present)
        return _Body(self, info, offset, data[offset : offset + length])

    def writer(self) -> StorageWriter:
        """Return what writes to the dictionary."""
        return FaultyWriter(self)

    def close(self) -> None:
        """Do nothing, so that a test may look on."""


class FaultyWriter(StorageWriter):
    """Writes to the dictionary, and goes wrong by the storage's script, before anything is changed."""

    def __init__(self, storage: FaultyStorage) -> None:
        """Change this storage."""
        self._storage: Final = storage

    def put(self, path: str, payload: Payload, job: WriteJob, *, exclusive: bool = False) -> Written:
        """Write an object."""
        data = payload.read(0, payload.size)
        payload.check()
        self._storage.act("put")
        if exclusive and self._storage.has(path):
            raise already_there(path)
        return Written(self._storage.put(path, data), True)

    def exclusive_bytes_max(self, path: str, job: WriteJob) -> int:
        """Return a large number."""
        return 1 << 40

    def delete(self, path: str) -> None:
        """Remove an object."""
        self._storage.act("delete")
        if not self._storage.has(path):
            if not self._storage.has(path, below=True):
                raise not_found(path)
            raise under_storage_error(path, "is a directory that is not empty", errno.ENOTEMPTY)
        self._storage.remove(path)

    def rename(self, path: str, target: str, job: WriteJob) -> ObjectInfo:
        """Rename an object, under a new version."""
        self._storage.act("rename")
        if not self._storage.has(path):
            if not self._storage.has(path, below=True):
                raise not_found(path)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return self._storage.put(target, self._storage.remove(path))

    def mkdir(self, path: str) -> None:
        """Refuse: there is nothing but objects."""
        raise under_storage_error(path, "there are no directories", errno.EOPNOTSUPP)

    def undo(self, facts: Facts) -> None:
        """Note that it was called."""
        self._storage.undone.append(facts)


class _Body(RangeBody):
    def __init__(self, storage: FaultyStorage, info: ObjectInfo, offset: int, data: bytes) -> None:
        self._storage = storage
        self._data = data
        self.info = info
        self.offset = offset
        self.length = len(data)
        self._done = 0

    def readinto(self, buffer: memoryview, progress: Callable[[], None] = lambda: None) -> None:
        # Whatever goes wrong does so half-way through the range.
        until_half = self.length // 2 - self._done
        if 0 <= until_half < len(buffer):
            self._copy(buffer[:until_half], progress)
            self._storage.act("readinto")
            buffer = buffer[until_half:]
        self._copy(buffer, progress)

    def _copy(self, buffer: memoryview, progress: Callable[[], None]) -> None:
        buffer[:] = self._data[self._done : self._done + len(buffer)]
        self._done += len(buffer)
        progress()

    def close(self) -> None:
        self._data = b""
