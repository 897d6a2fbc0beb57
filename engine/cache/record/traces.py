"""The traces of a cache: a folder each, with a part for every process that read.

```
meta/traces/NAME/about        JSON: when it was begun, the bytes of a block
                 recording    there while it is to be recorded; whoever began it holds it locked
                 *.part       what each process read
```

A part needs no end, so a trace can be read at any time, and whoever was killed has lost nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from heapq import merge
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from forebay.cache.record.part import Access, is_whole, read_part
from forebay.cache.record.recorder import GOING_ON, PART_SUFFIX, Recorder
from forebay.config import nearest
from forebay.errors import ConfigError, TraceNotFound
from forebay.meta import HeldLock

TraceState = Literal["recording", "interrupted", "complete", "incomplete"]

_ABOUT: Final = "about"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class TraceStatus:
    """A trace: when it was begun (seconds since 1970), and how it stands.

    processes read something, which takes file_bytes here. state: recording; interrupted, where whoever began
    it died; complete; or incomplete, where a process had to stop early.
    """

    name: str
    state: TraceState
    created: float
    processes: int
    file_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


class Trace:
    """What was read, in order. Threads: any."""

    def __init__(self, folder: Path) -> None:
        """Read what the folder says of itself. Raises: OSError, ValueError (it holds no trace)."""
        self.folder: Final = folder
        about = _read_about(folder)
        self.block_bytes: Final = int(about["block_bytes"])
        self.max_bytes: Final = int(about["max_bytes"])
        self._created: Final = float(about["created"])

    @property
    def name(self) -> str:
        """The name under which it was recorded."""
        return self.folder.name

    def accesses(self) -> Iterator[Access]:
        """Yield all accesses by time, those of the processes together; what is damaged ends a process's part.

        Raises, while it is iterated: OSError; ValueError (a part is none).
        """
        return merge(*map(read_part, self._parts()))

    def status(self) -> TraceStatus:
        """Describe the trace. Raises: OSError; ValueError (a part is none)."""
        parts = self._parts()
        file_bytes = sum(part.stat().st_blocks * 512 for part in parts)
        return TraceStatus(self.name, self._state(parts), self._created, len(parts), file_bytes)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob(f"*{PART_SUFFIX}"))

    def _state(self, parts: list[Path]) -> TraceState:
        try:
            descriptor = os.open(self.folder / GOING_ON, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return "complete" if all(map(is_whole, parts)) else "incomplete"
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return "recording"
        finally:
            os.close(descriptor)
        return "interrupted"


class Recording:
    """A trace that is being recorded; a context manager. Threads: any.

    It ends with ``end``, or with the process that began it; a child of a fork ends nothing.
    """

    def __init__(self, trace: Trace, lock: HeldLock) -> None:
        """Hold the lock of a trace that goes on."""
        self.trace: Final = trace
        self._lock: Final = lock
        self._pid: Final = os.getpid()

    @property
    def is_own(self) -> bool:
        """Whether this process began it."""
        return self._pid == os.getpid()

    def end(self) -> None:
        """Let every process stop; may be called twice."""
        if self.is_own:
            (self.trace.folder / GOING_ON).unlink(missing_ok=True)
            self._lock.release()

    def __enter__(self) -> Self:
        """Return this recording."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self.end()


class Traces:
    """The traces of one cache directory. Threads: any."""

    def __init__(self, folder: Path, block_bytes: int, shared_group: int | None = None) -> None:
        """Name the folder, which is made with the first trace."""
        self._folder: Final = folder
        self._block_bytes: Final = block_bytes
        self._shared_group: Final = shared_group

    def all(self) -> list[Trace]:
        """Return the traces, by name."""
        names = sorted(path.parent.name for path in self._folder.glob(f"*/{_ABOUT}"))
        return [Trace(self._folder / name) for name in names]

    def find(self, name: str) -> Trace:
        """Return a trace. Raises: TraceNotFound (with the nearest there is); ConfigError (a bad name)."""
        folder = self._path_of(name)
        if not (folder / _ABOUT).exists():
            known = [trace.name for trace in self.all()]
            raise TraceNotFound(f"no trace {name!r}{nearest(name, known)}; see `forebay trace list`")
        return Trace(folder)

    def begin(self, name: str, max_bytes: int) -> Recording:
        """Begin a trace, to which recorders write parts of max_bytes at most.

        Raises: ConfigError (a bad name, or there is a trace of it); OSError.
        """
        folder = self._path_of(name)
        _make_folder(self._folder, self._shared_group)
        try:
            _make_folder(folder, self._shared_group, must_be_new=True)
        except FileExistsError:
            cure = "choose another name, or delete it with `forebay trace delete`"
            raise ConfigError(f"there is a trace {name!r} already; {cure}") from None
        lock = _lock_new(folder / GOING_ON, self._shared_group)
        try:
            about = {"created": time.time(), "block_bytes": self._block_bytes, "max_bytes": max_bytes}
            _write(folder / _ABOUT, json.dumps(about), self._shared_group)
            return Recording(Trace(folder), lock)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            raise

    def join(self, name: str) -> Recorder | None:
        """Return a recorder for a trace that goes on, None if there is none. Raises: as ``find``."""
        try:
            trace = self.find(name)
        except TraceNotFound:
            return None
        if not (trace.folder / GOING_ON).exists():
            return None
        return Recorder(trace.folder, trace.max_bytes, self._shared_group)

    def delete(self, name: str) -> None:
        """Delete a trace; who records it stops. Raises: as ``find``; OSError."""
        shutil.rmtree(self.find(name).folder)

    def _path_of(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"trace name {name!r}: use 1 to 128 letters, digits, '.', '_' and '-', "
                "the first a letter or a digit"
            )
        return self._folder / name


def _read_about(folder: Path) -> dict[str, Any]:
    path = folder / _ABOUT
    try:
        about = json.loads(path.read_bytes())
        return {name: about[name] for name in ("created", "block_bytes", "max_bytes")}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: is damaged; record the trace anew") from None


def _make_folder(folder: Path, shared_group: int | None, *, must_be_new: bool = False) -> None:
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if must_be_new:
            raise
        return
    if shared_group is not None:
        os.chown(folder, -1, shared_group)
        folder.chmod(0o2770)


def _lock_new(path: Path, shared_group: int | None) -> HeldLock:
    descriptor = _create(path, shared_group)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return HeldLock(descriptor)


def _write(path: Path, text: str, shared_group: int | None) -> None:
    with open(_create(path, shared_group), "w", encoding="ascii") as file:
        file.write(text)


def _create(path: Path, shared_group: int | None) -> int:
    mode = 0o600 if shared_group is None else 0o660
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    if shared_group is not None:
        os.fchown(descriptor, -1, shared_group)
        os.fchmod(descriptor, mode)
    return descriptor
