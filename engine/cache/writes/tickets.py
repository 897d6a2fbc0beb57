"""Tickets: notes of the writes under way, from which what a killed one has left is found.

A ticket is a file in the cache directory that its writer holds locked: one that nobody has locked belongs to
a write that is over for good, however that came about, and whoever opens the cache next sees to it. Notes are
JSON objects, a line each, of which later ones win; a line that was cut short was never relied on.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from forebay.cache.folder import PrivateFolder
from forebay.cache.locks import try_lock
from forebay.meta import HeldLock

_SUFFIX: Final = ".write"
_READ_MAX: Final = 16 << 20
_IDLE_MAX: Final = 64


class Ticket:
    """The notes of one write. Threads: any."""

    def __init__(self, path: Path, lock: HeldLock) -> None:
        """Own the file, which lock holds."""
        self.path: Final = path
        self.name: Final = path.stem
        self.is_left = False
        self._lock: Final = lock

    def note(self, **facts: Any) -> None:
        """Add facts, on disk when this returns."""
        self.jot(**facts)
        os.fsync(self._lock.descriptor)

    def jot(self, **facts: Any) -> None:
        """Add facts, which a crash of the machine may lose."""
        # One write at the end of the file: lines of several threads are not mixed.
        os.write(self._lock.descriptor, json.dumps(facts, separators=(",", ":")).encode() + b"\n")

    def leave(self) -> None:
        """Keep the ticket when the write is over."""
        self.is_left = True

    def read(self) -> dict[str, Any]:
        """Return all facts."""
        facts: dict[str, Any] = {}
        for line in os.pread(self._lock.descriptor, _READ_MAX, 0).splitlines(keepends=True):
            with suppress(ValueError):
                if line.endswith(b"\n"):
                    facts |= json.loads(line)
        return facts

    def clear(self) -> None:
        """Drop all facts."""
        os.ftruncate(self._lock.descriptor, 0)

    def is_there(self) -> bool:
        """Say whether the file still has a name: somebody may have taken it for abandoned."""
        return os.fstat(self._lock.descriptor).st_nlink > 0

    def let_go(self) -> None:
        """Give the ticket up to whoever finds it."""
        self._lock.release()

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
        self._lock.release()


class Tickets:
    """The tickets of one cache directory, for one process. Threads: any."""

    def __init__(self, folder: PrivateFolder) -> None:
        """Keep tickets in this folder, which is made at the first write."""
        self._folder: Final = folder
        # Those that are not in use are kept, without facts, for the next writes.
        self._idle: Final[list[Ticket]] = []
        self._closed = False

    @contextmanager
    def open(self, facts: Mapping[str, Any]) -> Iterator[Ticket]:
        """Give a ticket with these facts for the length of one write. Raises: OSError."""
        ticket = self.take(facts)
        try:
            yield ticket
        finally:
            self.finish(ticket)

    def take(self, facts: Mapping[str, Any]) -> Ticket:
        """Return a ticket with these facts, for ``finish``. Raises: OSError."""
        try:
            ticket = self._idle.pop()
        except IndexError:
            ticket = self._make()
        try:
            ticket.jot(**facts)
        except BaseException:
            ticket.remove()
            raise
        return ticket

    def finish(self, ticket: Ticket) -> None:
        """End the write that the ticket is for; once."""
        if ticket.is_left:
            ticket.let_go()
        elif len(self._idle) < _IDLE_MAX and not self._closed:
            ticket.clear()
            self._idle.append(ticket)
        else:
            ticket.remove()

    def abandoned(self) -> Iterator[Ticket]:
        """Yield the tickets of writes that nobody is at any more, for the caller to remove or to let go."""
        for path in self._paths():
            try:
                lock = try_lock(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC))
            except FileNotFoundError:
                continue
            if lock is not None:
                ticket = Ticket(path, lock)
                if ticket.is_there():
                    yield ticket
                else:
                    ticket.let_go()

    def any(self) -> bool:
        """Say whether there are tickets at all, in use or not."""
        return next(self._paths(), None) is not None

    def close(self) -> None:
        """Remove those that are not in use, and keep none from now on."""
        self._closed = True
        while self._idle:
            self._idle.pop().remove()

    def _make(self) -> Ticket:
        while True:
            name = f"{secrets.token_hex(8)}{_SUFFIX}"
            lock = try_lock(self._folder.create(name, os.O_RDWR | os.O_EXCL | os.O_APPEND))
            # Before it was locked it may have been taken for abandoned.
            if lock is not None:
                ticket = Ticket(self._folder.path / name, lock)
                if ticket.is_there():
                    return ticket
                ticket.let_go()

    def _paths(self) -> Iterator[Path]:
        yield from self._folder.path.glob(f"*{_SUFFIX}")
