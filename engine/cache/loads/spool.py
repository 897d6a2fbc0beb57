"""The folder of a load's job: its lists, what failed, how far it is, and who runs it.

```
names        the file list as it was given, one JSON array of [line, name, error] a line, complete
listing      the objects found, one JSON array of [path, size, mtime_ns, version] a line, as it grows
listing.end  there once the listing is complete, with when and at which boot
directories  those that the objects lie in, one JSON text a line, some more than once
failures     one JSON object a line for each file that is not cached in the end
progress     the figures of the last run, replaced as a whole several times a second
runner       the file that whoever runs the job holds locked
cancel       there once somebody wants it to stop, with an id of that wish
log          what a run in the background had to say
```

Lists are appended to, and a line that a crash cut short is as good as none. Only ``names`` is synced: a crash
of the machine may lose a listing, which is made anew.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from forebay.cache.folder import PrivateFolder
from forebay.cache.locks import is_locked, try_lock
from forebay.meta import HeldLock

_NAMELESS_FOLDER_S: Final = 86_400.0


class JobFolder:
    """One job's folder. Threads: any; each list has one writer at a time, the holder of the lock."""

    def __init__(self, path: Path, shared_group: int | None = None) -> None:
        """Name a folder; nothing is made or read."""
        self.path: Final = path
        self._files: Final = PrivateFolder(path, shared_group)
        self._above: Final = PrivateFolder(path.parent, shared_group)

    def make(self) -> None:
        """Make the folder and the one above it. Raises: OSError (also where it is there already)."""
        with suppress(FileExistsError):
            self._above.make()
        self._files.make()

    def remove(self) -> None:
        """Remove the folder and all in it; what is gone already is no error."""
        shutil.rmtree(self.path, ignore_errors=True)

    def try_lock(self) -> HeldLock | None:
        """Take the right to run the job; None: somebody has it. Raises: OSError (the folder is gone)."""
        return try_lock(self._files.open("runner", os.O_RDWR | os.O_CREAT))

    def is_running(self) -> bool:
        """Say whether a live process runs the job."""
        try:
            descriptor = self._files.open("runner", os.O_RDWR)
        except FileNotFoundError:
            return False
        return is_locked(descriptor)

    def append(self, name: str) -> IO[str]:
        """Open a list to write on, behind its last whole line."""
        path = self.path / name
        descriptor = self._files.open(name, os.O_RDWR | os.O_CREAT)
        try:
            os.ftruncate(descriptor, _whole_lines_bytes(descriptor))
        finally:
            os.close(descriptor)
        return open(path, "a", encoding="ascii")

    def create(self, name: str) -> IO[str]:
        """Open a list to write from its beginning; what it held is gone."""
        return open(self._files.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w", encoding="ascii")

    def read(self, name: str) -> IO[bytes] | None:
        """Open a list to read, None if there is none."""
        try:
            return open(self.path / name, "rb")
        except FileNotFoundError:
            return None

    def lines(self, name: str) -> Iterator[Any]:
        """Yield what the whole lines of a list hold."""
        file = self.read(name)
        if file is None:
            return
        with file:
            for line in file:
                if line.endswith(b"\n"):
                    yield json.loads(line)

    def copy_list(self, name: str, source: JobFolder) -> None:
        """Take over another folder's list. Raises: OSError (FileNotFoundError: there is none)."""
        with open(source.path / name, encoding="ascii") as file, self.create(name) as output:
            shutil.copyfileobj(file, output)
            sync(output)

    def put(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a small file as a whole: a reader sees the old one or the new one."""
        new = f"{name}.new"
        with self.create(new) as file:
            json.dump(value, file)
        os.replace(self.path / new, self.path / name)

    def get(self, name: str) -> dict[str, Any] | None:
        """Read what ``put`` wrote, None if there is nothing (or a crash of the machine spoilt it)."""
        try:
            value = json.loads((self.path / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return value if isinstance(value, dict) else None

    def drop(self, name: str) -> None:
        """Remove a file; what is gone already is no error."""
        (self.path / name).unlink(missing_ok=True)

    def drop_if(self, name: str, value: Mapping[str, Any]) -> None:
        """Remove what ``put`` wrote if it is still that value: what was put since stays."""
        taken = f"{name}.taken"
        try:
            os.replace(self.path / name, self.path / taken)
        except FileNotFoundError:
            return
        if self.get(taken) == value:
            self.drop(taken)
        else:
            os.replace(self.path / taken, self.path / name)


def remove_nameless(parent: Path, named: Collection[str]) -> None:
    """Remove the folders that no record names: of a process that was killed while it made one.

    One that is young may belong to a record that is just being made.
    """
    for path in parent.iterdir() if parent.exists() else ():
        if path.name not in named and _age_s(path) > _NAMELESS_FOLDER_S:
            JobFolder(path).remove()


def _age_s(path: Path) -> float:
    """Return how long ago a folder was changed, 0 where it is gone already."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def sync(file: IO[str]) -> None:
    """Put a list on the disk: nothing else holds what is in it."""
    file.flush()
    os.fsync(file.fileno())


def json_line(value: Sequence[Any] | Mapping[str, Any] | str) -> str:
    """Return a value as one line of a list."""
    return json.dumps(value, separators=(",", ":")) + "\n"


def _whole_lines_bytes(descriptor: int) -> int:
    """Return the length of a list up to the end of its last whole line."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(end - 64 * 1024, 0)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
