"""What a storage is given for a write, without a cache: notes in memory, and requests side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from forebay.ufs.payload import Payload
from forebay.ufs.writer import WriteJob

_T = TypeVar("_T")


class Job(WriteJob):
    """Keeps what was noted."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.is_left = False

    def note(self, **facts: Any) -> None:
        self.facts |= facts

    def leave(self) -> None:
        self.is_left = True

    def run_all(self, tasks: Sequence[tuple[int, Callable[[], _T]]]) -> list[_T]:
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(run) for _, run in tasks]
        return [future.result() for future in futures]


class Watched(Payload):
    """Bytes that do something when they are read; an exception of it is that of the payload."""

    def __init__(self, data: bytes, act: Callable[[int], object]) -> None:
        self.size = len(data)
        self._data = data
        self._act = act

    def read(self, offset: int, length: int) -> bytes:
        self._act(offset)
        return self._data[offset : offset + length]
