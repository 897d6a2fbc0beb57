"""Turns: writes of one host to one path come one after another, whichever process they are in.

So the last to be acknowledged is the last that the under storage has taken, and what is told of it last. A
path stands for a byte of a lock file, found by hash; the kernel gives the turn of a dead process to the next.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from typing import Final

from forebay.cache.folder import PrivateFolder
from forebay.cache.locks import holding_byte
from forebay.meta import HeldLock

_FILE: Final = "paths.lock"
_PLACE_BYTES: Final = 8
_PLACES: Final = 1 << 62


class _Place:
    """A place that threads of this process wait for, or are at."""

    def __init__(self) -> None:
        self.lock: Final = threading.Lock()
        self.users = 0


class Turns:
    """The turns at all paths, for one process. Threads: any."""

    def __init__(self, folder: PrivateFolder) -> None:
        """Keep the lock file in this folder, which is made at the first write."""
        self._folder: Final = folder
        self._lock: Final = threading.Lock()
        self._places: Final[dict[int, _Place]] = {}
        self._file: HeldLock | None = None

    @contextmanager
    def at(self, dataset_id: int, paths: Iterable[str]) -> Iterator[None]:
        """Have the turn at all of the paths. Blocking: until those before have ended. Raises: OSError."""
        with ExitStack() as held:
            # In one order for all, or two who want the same two would wait for each other.
            for place in sorted({_place_of(dataset_id, path) for path in paths}):
                held.enter_context(self._among_threads(place))
                held.enter_context(holding_byte(self._opened(), place))
            yield

    def close(self) -> None:
        """Close the lock file."""
        with self._lock:
            file, self._file = self._file, None
        if file is not None:
            file.release()

    @contextmanager
    def _among_threads(self, number: int) -> Iterator[None]:
        with self._lock:
            place = self._places.setdefault(number, _Place())
            place.users += 1
        try:
            with place.lock:
                yield
        finally:
            with self._lock:
                place.users -= 1
                if place.users == 0:
                    del self._places[number]

    def _opened(self) -> HeldLock:
        file = self._file
        if file is None:
            with self._lock:
                if self._file is None:
                    self._file = HeldLock(self._folder.create(_FILE, os.O_RDWR))
                file = self._file
        return file


def _place_of(dataset_id: int, path: str) -> int:
    text = f"{dataset_id}/{path}".encode("utf-8", "surrogateescape")
    return int.from_bytes(blake2b(text, digest_size=_PLACE_BYTES).digest()) % _PLACES
