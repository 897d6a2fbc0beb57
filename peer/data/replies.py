"""What a batch of blocks that was asked for is still waiting for, whatever carries the frames."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from forebay.errors import Stale, forbidden, not_found
from forebay.peer.data.errors import refused
from forebay.peer.frames import Data, FrameError, Head, Kind, identity_of, parse_text
from forebay.remote import BlockRequest

# The block is to be had from elsewhere; nothing is wrong.
NOT_HERE = frozenset({Kind.MISS, Kind.BUSY, Kind.NOT_ATTACHED, Kind.ERROR})
SIGNS_OF_LIFE = frozenset({Kind.FETCHING, Kind.PROGRESS})


class BlockReplies:
    """Takes the answers to one READ frame into the buffers of who asked. Threads: one at a time.

    ``place`` says where a body belongs, and ``take`` what it means, once it is there and its checksum holds.
    """

    def __init__(
        self,
        address: str,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        first_id: int,
        came: Callable[[int], None],
    ) -> None:
        """Wait for all of them; the ids count on from first_id. Raises: ValueError (a buffer's length)."""
        for request, buffer in zip(requests, buffers, strict=True):
            if buffer.nbytes != request.length:
                raise ValueError(f"{request.path}: {buffer.nbytes} bytes of room for {request.length}")
        self._address = address
        self._requests = requests
        self._buffers = [buffer.cast("B") for buffer in buffers]
        self._first_id = first_id
        self._came = came
        self._got_bytes = [0] * len(requests)
        self._waiting = set(range(len(requests)))
        self._error: OSError | None = None

    @property
    def are_complete(self) -> bool:
        """Whether each request has had its last answer."""
        return not self._waiting

    def place(self, head: Head) -> memoryview:
        """Return where the body is to be put. Raises: FrameError (it answers nothing that was asked)."""
        index = head.id - self._first_id
        if index not in self._waiting:
            if head.kind in SIGNS_OF_LIFE:  # sent while the last of the answer was
                return memoryview(bytearray(head.body_bytes))
            raise FrameError(f"{head.kind.name} frame for request {head.id}, which waits for none")
        if head.kind is not Kind.DATA:
            return memoryview(bytearray(head.body_bytes))
        buffer, got_bytes = self._buffers[index], self._got_bytes[index]
        if head.total != len(buffer) or head.begin != got_bytes:
            raise FrameError(
                f"DATA frame of request {head.id}: byte {head.begin} of {head.total}, "
                f"where byte {got_bytes} of {len(buffer)} comes next"
            )
        return buffer[got_bytes : got_bytes + head.body_bytes]

    def take(self, head: Head, body: Data) -> None:
        """Note an answer. Raises: FrameError (it is about another block, or none to such a question)."""
        index = head.id - self._first_id
        if index not in self._waiting:
            return
        dataset, path, version, number, *_ = self._requests[index]
        if head.identity != identity_of(dataset, path, version, number):
            raise FrameError(f"{head.kind.name} frame of request {head.id} is about another block")
        if head.kind is Kind.DATA:
            self._got_bytes[index] += head.body_bytes
            if self._got_bytes[index] == head.total:
                self._waiting.discard(index)
                self._came(index)
            elif not head.body_bytes:
                raise FrameError(f"DATA frame of request {head.id} without data")
        elif head.kind not in SIGNS_OF_LIFE:
            self._waiting.discard(index)
            if self._error is None and head.kind not in NOT_HERE:
                self._error = error_of(head, body, f"{dataset}/{path}", self._address)

    def finish(self) -> None:
        """Raise what a peer said of the source or of who asks, the first of it, if it said any."""
        if self._error is not None:
            raise self._error


def error_of(head: Head, body: Data, path: str, address: str) -> OSError:
    """Return the exception for an answer that is none of data. Raises: FrameError (there is none for it)."""
    text = parse_text(body)
    if head.kind is Kind.NOT_FOUND:
        return not_found(path, text)
    if head.kind is Kind.STALE:
        return Stale(errno.ESTALE, text, path)
    if head.kind is Kind.FORBIDDEN:
        return forbidden(path, text)
    if head.kind is Kind.REFUSED:
        return refused(address, text)
    raise FrameError(f"{head.kind.name} frame of request {head.id} where it answers nothing")
