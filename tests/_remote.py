"""Peers in this process: a remote over the objects of an under storage, as good or bad as a test wants it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

from forebay.errors import not_found, stale
from forebay.remote import BlockRequest, Holder, LocalCopy, RemoteObject, Share
from forebay.testing.faulty import FaultyStorage
from forebay.ufs import ObjectInfo

# What becomes of one block: it comes, late or at once; it never comes, with nothing or rubbish in its buffer;
# or it and all that follow in the batch break off, by a word of the source or without one.
Fate = Literal["comes", "late", "lacks", "dies", "cut", "stale"]


class FakeRemote:
    """Peers that answer for everything by what a storage holds. Threads: any.

    fate decides about each block. objects are asked of the storage without a call that it counts; age_ns is
    how old answers are. calls counts what was asked, batches has the requests of each call of fetch.
    """

    def __init__(self, storage: FaultyStorage, local_copy: LocalCopy = "never") -> None:
        """Answer for all that the storage has, now and later."""
        self.local_copy: LocalCopy = local_copy
        self.storage: Final = storage
        self.elsewhere: Callable[[str, int], bool] = lambda path, offset: True
        self.fate: Callable[[BlockRequest], Fate] = lambda request: "comes"
        self.age_ns = 0
        self.is_silent = False
        self.calls: Final[Counter[str]] = Counter()
        self.batches: Final[list[list[BlockRequest]]] = []
        self.buffer_bytes = 0
        self.buffer_bytes_max = 0
        self._lock: Final = threading.Lock()
        self.is_closed = False

    def is_elsewhere(self, dataset: str, path: str, offset: int, replicas: int = 1) -> bool:
        return self.elsewhere(path, offset)

    def owns(self, dataset: str, path: str, offset: int) -> bool:
        return not self.elsewhere(path, offset)

    def holders(self, dataset: str, path: str, offset: int, replicas: int = 1) -> Sequence[Holder]:
        return ()

    def share(self, members: Sequence[str]) -> Share:
        return self.owns

    def fetch(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
    ) -> None:
        assert len(requests) == len(buffers)
        size_bytes = sum(map(len, buffers))
        with self._lock:
            self.calls["fetch"] += 1
            self.batches.append(list(requests))
            self.buffer_bytes += size_bytes
            self.buffer_bytes_max = max(self.buffer_bytes_max, self.buffer_bytes)
        try:
            self._fetch(requests, buffers, came, alive)
        finally:
            with self._lock:
                self.buffer_bytes -= size_bytes

    def _fetch(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
    ) -> None:
        late: list[int] = []
        for index, request in enumerate(requests):
            alive()
            fate = self.fate(request)
            assert len(buffers[index]) == request.length
            if fate == "dies":
                buffers[index][: request.length // 2] = b"x" * (request.length // 2)
                break
            if fate == "cut":
                buffers[index][:] = b"x" * request.length
            elif fate == "stale":
                raise stale(request.path, request.version, "another")
            elif fate == "late":
                late.append(index)
            elif fate == "comes" and self._fill(request, buffers[index]):
                came(index)
        for index in reversed(late):
            if self._fill(requests[index], buffers[index]):
                # In another thread, as those that read sockets.
                thread = threading.Thread(target=came, args=(index,))
                thread.start()
                thread.join()

    def _fill(self, request: BlockRequest, buffer: memoryview) -> bool:
        found = self.storage.content(request.path)
        if found is None or found[1] != request.version:
            return False
        buffer[:] = found[0][request.offset : request.offset + request.length]
        return True

    def touch(
        self, dataset: str, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, memoryview] | None:
        self.calls["touch"] += 1
        if self.is_silent:
            return None
        found = self.storage.content(path)
        if found is None:
            raise not_found(path)
        return self._told(path, found), memoryview(found[0])[offset : offset + length]

    def stat(self, dataset: str, path: str) -> RemoteObject | None:
        self.calls["stat"] += 1
        if self.is_silent:
            return None
        found = self.storage.content(path)
        if found is not None:
            return self._told(path, found)
        if not path or self.storage.has(path, below=True):
            return RemoteObject(path, 0, 0, "", True, self.age_ns)
        raise not_found(path)

    def _pages(self, directory: str) -> Iterator[list[RemoteObject]]:
        try:
            for page in self.storage.list(directory):
                yield [RemoteObject(*info, self.age_ns) for info in page]
        finally:
            self.storage.calls["list"] -= 1

    def list(self, dataset: str, directory: str) -> Iterator[list[RemoteObject]] | None:
        self.calls["list"] += 1
        if self.is_silent:
            return None
        return self._pages(directory)

    def _told(self, path: str, found: tuple[bytes, str]) -> RemoteObject:
        return RemoteObject(*ObjectInfo(path, len(found[0]), 0, found[1]), self.age_ns)

    def close(self) -> None:
        self.is_closed = True
