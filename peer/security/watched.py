"""Files that are read again when they change: certificates and lists are replaced under a running server."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from forebay.errors import ConfigError

_log: Final = logging.getLogger(__name__)

_T = TypeVar("_T")
_Signature = tuple[tuple[int, int, int] | None, ...]

LOOK_INTERVAL_S: Final = 1.0


class Watched(Generic[_T]):
    """What was made of some files, made anew when one of them is another file or was written to.

    load reads the files and raises ConfigError or OSError where they are no good. At first that is the
    caller's error. Later it is logged, once for each state of the files, and the last good value stays in
    use: files are often replaced one after the other. Threads: any; two may load at the same time, which
    does no harm, so that no lock is there for a fork to take along.
    """

    def __init__(
        self, files: Sequence[str], load: Callable[[], _T], interval_s: float = LOOK_INTERVAL_S
    ) -> None:
        """Load for the first time, and look at the files at most every interval_s from now on.

        Raises: what load raises.
        """
        self._files = tuple(files)
        self._load = load
        self._interval_s = interval_s
        self._signature = self._look()
        self._looked_s = time.monotonic()
        self._value = load()

    def current(self) -> _T:
        """Return the value for what the files hold now. Costs a clock's reading, mostly."""
        now_s = time.monotonic()
        if now_s - self._looked_s < self._interval_s:
            return self._value
        self._looked_s = now_s
        signature = self._look()
        if signature != self._signature:
            # Before loading: a write in the middle of it is seen the next time.
            self._signature = signature
            try:
                self._value = self._load()
            except (ConfigError, OSError) as error:
                _log.warning("not taken over, what was read before stays in use: %s", error)
            else:
                _log.info("read again: %s", ", ".join(self._files))
        return self._value

    def _look(self) -> _Signature:
        return tuple(_signature(file) for file in self._files)


def _signature(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def read_file(file: str, what: str, bytes_max: int = 1 << 20) -> bytes:
    """Return what a file holds; what names it in errors. Raises: ConfigError (unreadable, or too large)."""
    try:
        with open(file, "rb") as stream:
            content = stream.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{what} {file}: cannot be read: {error.strerror}") from error
    if len(content) > bytes_max:
        raise ConfigError(f"{what} {file}: is larger than {bytes_max} bytes, so it is something else")
    return content
