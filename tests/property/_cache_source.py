"""An under storage that several processes share and that changes underneath them, and all that it was.

Its state is one small file, changed under a lock and replaced as a whole, so that a process killed in a call
leaves it whole. An object's bytes follow from its version, and no two versions have the same: whoever knows
the version knows the bytes, and bytes of two versions in one answer are those of none.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import pickle
import random
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from forebay.clock import NS_PER_S, BootClock, Clock
from forebay.errors import stale, timed_out, under_storage_error
from forebay.testing.faulty import FaultyStorage, Operation
from forebay.ufs import ObjectInfo, RangeBody, RequestKind, StorageFactory, UnderStorage

STALL_S_MAX: Final = 120.0
_STEP_S: Final = 0.001
_WORD: Final = struct.Struct("<q")


@lru_cache(maxsize=256)
def content(seed: int, length: int) -> bytes:
    """Return the bytes of a version."""
    return random.Random(seed).randbytes(length)


@dataclass(frozen=True)
class Version:
    """What a path was from one moment on: an object, or nothing (length None)."""

    seed: int
    length: int | None
    since_ns: int

    @property
    def etag(self) -> str:
        """Its version as the storage gives it."""
        return f"v{self.seed}"

    def data(self) -> bytes:
        """Its bytes."""
        assert self.length is not None
        return content(self.seed, self.length)


@dataclass(frozen=True)
class Fault:
    """What befalls one call of an operation; change (path, length) is for "change" and "stale"."""

    operation: Operation
    kind: str  # a key of ERRORS, "stall", "short" or "change"
    change: tuple[str, int | None] | None = None


@dataclass
class State:
    """Everything that the processes share."""

    history: dict[str, list[Version]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    fired: list[Fault] = field(default_factory=list)
    is_stalled: bool = False
    changes: int = 0
    # What caches are about to write: digest of the bytes -> their seed.
    announced: dict[bytes, int] = field(default_factory=dict)


class SharedClock:
    """The boot clock and an offset, which all processes share and any of them moves on."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("r+b") as file:
            self._memory: Final = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def boot_ns(self) -> int:
        """Return the time."""
        return BootClock().boot_ns() + int(_WORD.unpack_from(self._memory)[0])

    def advance(self, seconds: float) -> None:
        """Move on."""
        _WORD.pack_into(self._memory, 0, int(_WORD.unpack_from(self._memory)[0]) + int(seconds * NS_PER_S))


class Source:
    """The shared state, from whichever process."""

    def __init__(self, folder: Path, *, is_manual: bool) -> None:
        self._state: Final = folder / "state"
        self._lock: Final = folder / "lock"
        self._log: Final = folder / "requests"
        self._offset: Final = SharedClock(folder / "clock")
        self.clock: Final[Clock] = self._offset if is_manual else BootClock()
        if not self._state.exists():
            self._lock.touch()
            self._state.write_bytes(pickle.dumps(State()))

    def advance(self, seconds: float) -> None:
        """Let time pass for all; the kernel's own clock takes its time."""
        if self.clock is self._offset:
            self._offset.advance(seconds)
        else:
            time.sleep(seconds)

    def look(self) -> State:
        """Return the state as it is."""
        state: State = pickle.loads(self._state.read_bytes())
        return state

    @contextmanager
    def changed(self) -> Iterator[State]:
        """Change the state."""
        with self._lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            state = self.look()
            yield state
            new = self._state.with_name("state.new")
            new.write_bytes(pickle.dumps(state))
            os.replace(new, self._state)

    def put(self, path: str, length: int | None) -> None:
        """Write another version of an object, or remove it."""
        with self.changed() as state:
            self._put(state, path, length)

    def _put(self, state: State, path: str, length: int | None) -> None:
        state.changes += 1
        self._add(state, path, Version(state.changes, length, self.clock.boot_ns()))

    def _add(self, state: State, path: str, version: Version) -> None:
        state.history.setdefault(path, []).append(version)

    def announce(self, length: int) -> int:
        """Return the seed of bytes that a cache is to write."""
        with self.changed() as state:
            state.changes += 1
            state.announced[_digest(content(state.changes, length))] = state.changes
            return state.changes

    def write(self, path: str, data: bytes) -> Version:
        """Take what was announced as the next version of an object."""
        with self.changed() as state:
            version = Version(state.announced[_digest(data)], len(data), self.clock.boot_ns())
            self._add(state, path, version)
            return version

    def take_fault(self, operation: Operation) -> Fault | None:
        """Return what befalls the next call of an operation, done as far as it is a change."""
        if not self.look().faults:
            return None
        with self.changed() as state:
            for fault in state.faults:
                if fault.operation == operation:
                    break
            else:
                return None
            state.faults.remove(fault)
            state.fired.append(fault)
            state.is_stalled = state.is_stalled or fault.kind == "stall"
            if fault.change is not None:
                self._put(state, *fault.change)
            return fault

    def plan(self, faults: list[Fault]) -> None:
        """Let these befall the next calls, instead of what was planned before, and let stalled ones go on."""
        with self.changed() as state:
            state.faults, state.fired, state.is_stalled = faults, [], False

    def log_request(self, uri: str, kind: RequestKind) -> None:
        """Note that a request was sent."""
        with self._log.open("a") as file:
            file.write(f"{uri} {kind}\n")

    def requests(self, uri: str) -> Counter[str]:
        """Return how many requests were sent for a URI, by kind."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return Counter(kind for to, kind in map(str.split, lines) if to == uri)

    def schemes(self) -> dict[str, StorageFactory]:
        """Return a table of under storages with this one in it."""

        def factory(uri: str, options: Mapping[str, Any]) -> UnderStorage:
            return SharedStorage(self, uri)

        return {"shared": factory}


REQUESTS: Final[Mapping[Operation, RequestKind]] = {
    "stat": "heads",
    "list": "lists",
    "read_range": "gets",
    "put": "puts",
    "delete": "deletes",
}


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


class SharedStorage(FaultyStorage):
    """The shared objects, as one process asks for them; an object may have others below it, as in S3."""

    has_directories = False

    def __init__(self, source: Source, uri: str) -> None:
        super().__init__()
        self._source = source
        self._uri = uri
        self._of_thread = threading.local()

    def act(self, operation: Operation) -> None:
        """Do what befalls this call, then see what there is."""
        # What befell a call that then did nothing, as there was nothing to remove, befalls no later one.
        self._of_thread.is_lost = False
        if (kind := REQUESTS.get(operation)) is not None:
            self.on_request(kind)
            self._source.log_request(self._uri, kind)
        fault = self._source.take_fault(operation)
        newest = {path: versions[-1] for path, versions in self._source.look().history.items()}
        self.replace(
            {
                path: (version.data(), version.etag)
                for path, version in newest.items()
                if version.length is not None
            }
        )
        if fault is not None:
            self._strike(fault)

    def _strike(self, fault: Fault) -> None:
        if fault.kind == "stall":
            given_up_at = time.monotonic() + STALL_S_MAX
            while self._source.look().is_stalled and time.monotonic() < given_up_at:
                time.sleep(_STEP_S)
        elif fault.kind == "short":
            self._of_thread.is_short = True
        elif fault.kind == "lost":
            self._of_thread.is_lost = True
        elif fault.kind != "change":
            raise ERRORS[fault.kind]()

    def put(self, path: str, data: bytes) -> ObjectInfo:
        """Write as a cache does; what "lost" befalls is done, and its answer does not come."""
        version = self._source.write(path, data)
        self._lose()
        return ObjectInfo(path, len(data), 0, version.etag)

    def remove(self, path: str) -> bytes:
        """Remove as a cache does."""
        data = super().remove(path)
        self._source.put(path, None)
        self._lose()
        return data

    def _lose(self) -> None:
        if self._of_thread.is_lost:
            raise ERRORS["timeout"]()

    def read_range(self, path: str, offset: int, length: int, version: str | None = None) -> RangeBody:
        """Begin to read; what "short" befalls has a byte less than it should."""
        self._of_thread.is_short = False
        body = super().read_range(path, offset, length, version)
        return _Short(body) if self._of_thread.is_short and body.length > 0 else body


class _Short(RangeBody):
    def __init__(self, body: RangeBody) -> None:
        self._body = body
        self.info, self.offset, self.length = body.info, body.offset, body.length - 1

    def readinto(self, buffer: memoryview, progress: Callable[[], None] = lambda: None) -> None:
        self._body.readinto(buffer, progress)

    def close(self) -> None:
        self._body.close()


ERRORS: Final[Mapping[str, Callable[[], OSError]]] = {
    "error": lambda: under_storage_error("shared", "HTTP 503, on purpose"),
    "timeout": lambda: timed_out("shared", "on purpose"),
    "forbidden": lambda: PermissionError(13, "on purpose", "shared"),
    "stale": lambda: stale("shared", "this one", "another"),
}
