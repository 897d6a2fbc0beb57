"""A cache in a process of its own, driven through a pipe, which can be killed at any moment."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from forebay.cache import Cache, CachedFile
from forebay.config import Tier
from tests.property._cache_source import Source, content

# fork: a child is there in milliseconds, and a machine kills dozens of them in every run.
_CONTEXT: Final = multiprocessing.get_context("fork")
_ANSWER_TIMEOUT_S: Final = 60
_PR_SET_PDEATHSIG: Final = 1
_HELD_MAX: Final = 8

Digest = tuple[int, bytes]


def digest_of(data: Any) -> Digest:
    """Return length and hash of bytes."""
    return len(data), hashlib.blake2b(data, digest_size=16).digest()


@dataclass(frozen=True)
class Place:
    """Where the cache lies, and what every process opens it with."""

    path: str
    tiers: tuple[Tier, ...]
    options: dict[str, Any]
    source: Path
    is_manual: bool


class CacheProcess:
    """The parent's side. A call raises what the cache raised; it fails when the process died of itself."""

    def __init__(self, place: Place) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, place), daemon=True)
        self._process.start()
        theirs.close()
        self.answer()

    def call(self, name: str, *arguments: Any) -> Any:
        """Have a method of _Servant or Cache called and wait for what it returns."""
        self.post(name, *arguments)
        return self.answer()

    def post(self, name: str, *arguments: Any) -> None:
        """Have a method called, and do not wait."""
        self._pipe.send((name, arguments))

    def kill(self) -> None:
        """End the process in the middle of whatever it does."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()
        self._pipe.close()

    def close(self) -> None:
        """Close the cache and end the process; fails when it leaves descriptors, threads or maps behind."""
        left = self.call("close")
        assert left == [], left
        self._process.join(_ANSWER_TIMEOUT_S)
        assert self._process.exitcode == 0
        self._pipe.close()

    def has_answered(self) -> bool:
        """Say whether the answer to the posted call is there."""
        return self._pipe.poll(0)

    def answer(self) -> Any:
        """Wait for what the posted call returns."""
        if not self._pipe.poll(_ANSWER_TIMEOUT_S):
            self.kill()
            raise AssertionError("the cache does not answer")
        try:
            failed, result = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise AssertionError(f"the cache's process died: {self._process.exitcode}") from None
        if failed:
            raise result
        return result


class _Servant:
    """What the child does with its cache."""

    def __init__(self, place: Place) -> None:
        source = Source(place.source, is_manual=place.is_manual)
        self._before = set(_held_by_this_process())
        clock = source.clock if place.is_manual else None
        self.cache = Cache(place.path, place.tiers, schemes=source.schemes(), clock=clock, **place.options)
        self._views: list[Any] = []
        self._files: list[CachedFile] = []

    def attach(self, name: str, uri: str, max_age: float | None, negative_ttl: float, retention: str) -> None:
        self.cache.attach(
            name,
            uri,
            max_age=max_age,
            negative_ttl=negative_ttl,
            retention=retention,
            writable=True,
            write_mode="through" if name == "some" else "cache_through",
        )

    def put(self, path: str, seed: int, length: int) -> tuple[str, int]:
        status = self.cache.put(path, content(seed, length))
        return status.version, status.size

    def write_file(self, path: str, seed: int, length: int) -> None:
        with self.cache.open(path, "wb") as file:
            file.write(content(seed, length))

    def free(self, path: str, data: bool, metadata: bool) -> None:
        self.cache.free(path, data=data, metadata=metadata)

    def read(self, path: str, offset: int, length: int | None) -> Digest:
        with self.cache.read(path, offset, length) as view:
            return digest_of(view)

    def readinto(self, path: str, offset: int, length: int) -> Digest:
        buffer = bytearray(length)
        return digest_of(buffer[: self.cache.readinto(path, buffer, offset)])

    def read_many(self, paths: Sequence[str]) -> list[Digest]:
        return [digest_of(view) for view in self.cache.read_many(paths)]

    def views(self, path: str) -> Digest:
        return digest_of(b"".join(bytes(view) for view in self.cache.views(path)))

    def hold(self, path: str) -> Digest:
        self._views.append(self.cache.read(path))
        del self._views[:-_HELD_MAX]
        return digest_of(self._views[-1])

    def held(self) -> list[Digest]:
        return [digest_of(view) for view in self._views]

    def open(self, path: str) -> tuple[str, int]:
        file = self.cache.open(path)
        self._files.append(file)
        return file.version, file.size

    def read_file(self, index: int, offset: int, length: int) -> Digest:
        self._files[index].seek(offset)
        return digest_of(self._files[index].read(length))

    def stat(self, path: str) -> tuple[str, int, bool]:
        status = self.cache.stat(path)
        return status.version, status.size, status.is_dir

    def walk(self, path: str) -> list[tuple[str, list[str], list[str]]]:
        return list(self.cache.walk(path))

    def load(self, path: str) -> tuple[str, str]:
        result = self.cache.load(path).wait(_ANSWER_TIMEOUT_S)
        return result.state, result.reason

    def each(self, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[tuple[Any, Exception | None]]:
        """Make calls one after another; return what each came to: a value, or an exception."""
        found: list[tuple[Any, Exception | None]] = []
        for name, arguments in calls:
            try:
                found.append((getattr(self, name)(*arguments), None))
            except (OSError, ValueError, LookupError) as error:
                found.append((None, error.with_traceback(None)))
        return found

    def cached_bytes(self) -> int:
        found: int = self.cache.status()["committed_bytes"]
        return found

    def close(self) -> list[str]:
        self._views.clear()
        while self._files:
            self._files.pop().close()
        self.cache.close()
        gc.collect()
        return sorted(set(_held_by_this_process()) - self._before)


def _held_by_this_process() -> list[str]:
    """Name open files and running threads."""
    numbers = [entry.name for entry in os.scandir("/proc/self/fd")]
    found = [thread.name for thread in threading.enumerate()]
    for number in numbers:
        try:
            found.append(f"{number}: {os.readlink(f'/proc/self/fd/{number}')}")
        except FileNotFoundError:
            continue  # the one that listed them
    return found


def _serve(pipe: Connection, place: Place) -> None:
    # Siblings hold copies of each other's pipes, so that none of them would see the end of it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    servant = _Servant(place)
    pipe.send((False, None))
    name = ""
    while name != "close":
        name, arguments = pipe.recv()
        method: Callable[..., Any] = getattr(servant, name, None) or getattr(servant.cache, name)
        try:
            answer = (False, method(*arguments))
        except (OSError, ValueError, LookupError) as error:
            answer = (True, error)
        pipe.send(answer)
        # A traceback holds on to all that was used.
        del answer
