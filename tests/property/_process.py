"""A block store in a process of its own, driven through a pipe, which can be killed at any moment."""

from __future__ import annotations

import ctypes
import hashlib
import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from forebay.store import BlockStore, Tier, View

# fork: a child is there in milliseconds, and a machine kills dozens of them in every run.
_CONTEXT = multiprocessing.get_context("fork")
_ANSWER_TIMEOUT_S = 60
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Value:
    """What lies in a block: length bytes from start on of the bytes that a seed stands for."""

    seed: int
    length: int
    start: int = 0

    def data(self) -> bytes:
        return random.Random(self.seed).randbytes(self.start + self.length)[self.start :]


Digest = tuple[int, bytes]


def digest_of(data: bytes | View) -> Digest:
    return len(data), hashlib.blake2b(data, digest_size=16).digest()


class StoreProcess:
    """The parent's side. A call raises what the store raised; it fails when the process died of itself."""

    def __init__(self, path: str, tiers: Sequence[Tier], options: dict[str, Any]) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, path, tiers, options), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def call(self, name: str, *arguments: Any) -> Any:
        """Have a method of _Servant called and wait for what it returns."""
        self.post(name, *arguments)
        return self._answer()

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
        """Close the store and end the process."""
        self.call("close")
        self._process.join(_ANSWER_TIMEOUT_S)
        assert self._process.exitcode == 0
        self._pipe.close()

    def _answer(self) -> Any:
        if not self._pipe.poll(_ANSWER_TIMEOUT_S):
            self.kill()
            raise AssertionError("the store does not answer")
        try:
            failed, result = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise AssertionError(f"the store's process died: {self._process.exitcode}") from None
        if failed:
            raise result
        return result


class _Servant:
    """What the child does with its store."""

    def __init__(self, store: BlockStore) -> None:
        self.store = store
        self.held: list[View] = []

    def put(self, key: bytes, value: Value, terms: dict[str, Any]) -> bool:
        return self.store.put(key, value.data(), **terms)

    def put_all(self, blocks: Sequence[tuple[bytes, Value, int]]) -> list[bool]:
        return [self.store.put(key, value.data(), dataset=dataset) for key, value, dataset in blocks]

    def change_all(self, changes: Sequence[tuple[bytes, Value | None, int]]) -> None:
        for key, value, dataset in changes:
            if value is None:
                self.store.delete(key)
            else:
                self.store.put(key, value.data(), dataset=dataset)

    def reserve(self, key: bytes, value: Value, terms: dict[str, Any], keep: bool) -> bool:
        reservation = self.store.reserve(key, value.length, **terms)
        memoryview(reservation)[:] = value.data()
        if not keep:
            reservation.abandon()
            return False
        return reservation.commit()

    def write_file(
        self, key: bytes, blocks: Sequence[tuple[bytes, Value]], terms: dict[str, Any], keep: bool
    ) -> bool:
        size, block_bytes = sum(value.length for _, value in blocks), blocks[0][1].length
        file = self.store.reserve_file(key, size, block_bytes=block_bytes, **terms)
        for number, (block_key, value) in enumerate(blocks):
            file.write(number, block_key, value.data())
        return file.finish(keep)

    def get(self, key: bytes) -> Digest | None:
        return self._digest(self.store.get(key))

    def get_file(self, key: bytes) -> Digest | None:
        return self._digest(self.store.get_file(key))

    def get_all(self, keys: Sequence[bytes]) -> dict[bytes, Digest | None]:
        return {key: self.get(key) for key in keys}

    def read_part(self, key: bytes, offset: int, length: int) -> bytes | None:
        target = bytearray(length)
        copied = self.store.readinto(key, target, offset)
        return None if copied is None else bytes(target[:copied])

    def hold(self, key: bytes) -> Digest | None:
        view = self.store.get(key)
        if view is not None:
            self.held.append(view)
        return self._digest(view)

    def held_digests(self) -> list[Digest]:
        return [digest_of(view) for view in self.held]

    def let_go(self) -> None:
        self.held.clear()

    def rebuilding(self) -> bool:
        return bool(self.store.status()["index"]["rebuilding"])

    def close(self) -> None:
        self.held.clear()
        self.store.close()

    @staticmethod
    def _digest(view: View | None) -> Digest | None:
        return None if view is None else digest_of(view)


def _die_with_the_parent() -> None:
    """Siblings hold copies of each other's pipes, so that none of them would see the end of it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve(pipe: Connection, path: str, tiers: Sequence[Tier], options: dict[str, Any]) -> None:
    _die_with_the_parent()
    servant = _Servant(BlockStore(path, tiers, **options))
    pipe.send((False, None))
    name = ""
    while name != "close":
        name, arguments = pipe.recv()
        method: Callable[..., Any] = getattr(servant, name, None) or getattr(servant.store, name)
        try:
            answer = (False, method(*arguments))
        except (OSError, ValueError) as error:
            answer = (True, error)
        pipe.send(answer)
