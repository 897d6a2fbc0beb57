"""Copies on their way to one member: what it lacks is asked for, and pushed at a bounded rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

from forebay.config import MIB
from forebay.peer.answer import Hit
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.service.reads import message_of, parts_of
from forebay.remote import BlockRef

ASKED_MAX: Final = 10_000  # blocks for one question, 16 MiB of message at most by far
HOLDS_S: Final = 30.0
PUSH_S: Final = 30.0
# What is in memory for one call; a block that the other cannot take holds up no more than these.
_STREAM_BLOCKS: Final = 64
_STREAM_BYTES: Final = 16 * MIB
_WAIT_STEP_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLimits:
    """Bounds of what a member does for copies.

    rate_bytes_s: pushed in a second, to all members together. hand_over_s, hand_over_bytes: for what is hot
    when the member leaves.
    """

    rate_bytes_s: int = 100 * MIB
    hand_over_s: float = 5.0
    hand_over_bytes: int = 1 << 30


class PeerStub(Protocol):
    """The calls that are used of the service Peer."""

    @property
    def Holds(self) -> Callable[..., Any]:  # noqa: N802  (as in forebay.proto)
        """Says which blocks a member has."""

    @property
    def Push(self) -> Callable[..., Any]:  # noqa: N802  (as in forebay.proto)
        """Takes blocks."""


class Pushed(NamedTuple):
    """Blocks that a member took, their bytes, and blocks for which it had no room."""

    blocks: int = 0
    size_bytes: int = 0
    refused: int = 0


class Copy(NamedTuple):
    """A block to push, and of what object it is."""

    ref: BlockRef
    object_bytes: int
    mtime_ns: int


class Pace:
    """Lets so many bytes a second pass. Threads: any."""

    def __init__(self, bytes_per_s: int, stopping: threading.Event) -> None:
        """Wait for nothing any more once stopping is set."""
        self._bytes_per_s: Final = bytes_per_s
        self._stopping: Final = stopping
        self._lock: Final = threading.Lock()
        self._free_s = 0.0

    def wait(self, size_bytes: int) -> bool:
        """Wait until these bytes may go; return False, and let them not go, if it is stopping."""
        with self._lock:
            begin_s = max(self._free_s, time.monotonic())
            self._free_s = begin_s + size_bytes / self._bytes_per_s
        while not self._stopping.is_set() and (left_s := begin_s - time.monotonic()) > 0:
            self._stopping.wait(min(left_s, _WAIT_STEP_S))
        return not self._stopping.is_set()


def held_by(stub: PeerStub, refs: Sequence[BlockRef], timeout_s: float = HOLDS_S) -> bytes:
    """Return a byte for each block: 1 where a member has it. Raises: grpc.RpcError."""
    held = b""
    for start in range(0, len(refs), ASKED_MAX):
        blocks = [message_of(ref) for ref in refs[start : start + ASKED_MAX]]
        reply = stub.Holds(pb.HoldsRequest(blocks=blocks), timeout=timeout_s).held
        if len(reply) != len(blocks):
            raise ValueError(f"a member told of {len(reply)} blocks when it was asked about {len(blocks)}")
        held += reply
    return held


def push(
    stub: PeerStub,
    copies: Iterable[Copy],
    hit: Callable[[str, str, str, int], Hit | None],
    pace: Pace,
    timeout_s: float = PUSH_S,
) -> Iterator[Pushed]:
    """Push blocks to a member, some at a time, and yield what became of these.

    What is cached here no more, as hit finds it, is left out. Ends early if the pace does. timeout_s is for
    each call. Raises: grpc.RpcError; Closed.
    """
    blocks: list[Sequence[pb.PushPart]] = []
    for copy in copies:
        view = hit(*copy.ref)
        if view is None:
            continue
        try:
            with memoryview(view) as data:
                if not data or not pace.wait(len(data)):
                    continue
                blocks.append(parts_of(copy.ref, copy.object_bytes, copy.mtime_ns, data))
        finally:
            view.release()
        if len(blocks) >= _STREAM_BLOCKS or sum(map(_size_bytes, blocks)) >= _STREAM_BYTES:
            yield _send(stub, blocks, timeout_s)
            blocks = []
    if blocks:
        yield _send(stub, blocks, timeout_s)


def _send(stub: PeerStub, blocks: Sequence[Sequence[pb.PushPart]], timeout_s: float) -> Pushed:
    replies = list(stub.Push(chain.from_iterable(blocks), timeout=timeout_s))
    taken = [block for block, reply in zip(blocks, replies, strict=True) if reply.admitted]
    return Pushed(len(taken), sum(map(_size_bytes, taken)), len(blocks) - len(taken))


def _size_bytes(block: Sequence[pb.PushPart]) -> int:
    return int(block[0].block_length)
