"""The service Peer but its block stream: what a member knows, has, and takes from others of its own group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import grpc

from forebay.errors import ConfigError
from forebay.peer._checksum import crc32c
from forebay.peer.handshake import Terms
from forebay.peer.member import Member, View
from forebay.peer.paths import decoded, encoded
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.service.errors import EXPECTED, abort
from forebay.remote import BlockRef, RemoteObject

if TYPE_CHECKING:
    from forebay.cache import Serving

HOLDS_MAX: Final = 100_000
PUSH_PART_BYTES: Final = 1 << 20


class ReadService:
    """Answers by what this member serves; what may block is done in threads."""

    def __init__(
        self, serving: Serving, terms: Terms, me: Callable[[], Member], view: Callable[[], View]
    ) -> None:
        """Answer for this member, as it is now, with the view that it has now."""
        self._serving: Final = serving
        self._terms: Final = terms
        self._me: Final = me
        self._view: Final = view

    async def Hello(self, request: pb.HelloRequest, context: Any) -> pb.HelloReply:  # noqa: N802
        """Shake hands, or say what does not match."""
        try:
            self._terms.check(request)
        except ConfigError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return self._terms.reply(self._me(), self._view())

    async def GetView(self, request: pb.ViewRequest, context: Any) -> pb.View:  # noqa: N802
        """Return the members as this one sees them."""
        return self._view().to_message()

    async def Stat(self, request: pb.StatRequest, context: Any) -> pb.StatReply:  # noqa: N802
        """Describe an object or a directory."""
        try:
            found = await asyncio.to_thread(self._serving.stat, request.dataset, decoded(request.path))
        except EXPECTED as error:
            await abort(context, error)
        return pb.StatReply(object=_object(found))

    async def List(  # noqa: N802
        self, request: pb.ListRequest, context: Any
    ) -> AsyncIterator[pb.ListPage]:
        """Yield what lies in a directory."""
        try:
            pages = await asyncio.to_thread(self._serving.list, request.dataset, decoded(request.directory))
            while (page := await asyncio.to_thread(next, pages, None)) is not None:
                yield pb.ListPage(objects=[_object(found) for found in page])
        except EXPECTED as error:
            await abort(context, error)

    async def Locate(self, request: pb.LocateRequest, context: Any) -> pb.LocateReply:  # noqa: N802
        """Return how much of a path is cached here."""
        try:
            cached, total = await asyncio.to_thread(
                self._serving.cached_bytes, request.dataset, decoded(request.path)
            )
        except EXPECTED as error:
            await abort(context, error)
        return pb.LocateReply(cached_bytes=cached, total_bytes=total)

    async def Holds(self, request: pb.HoldsRequest, context: Any) -> pb.HoldsReply:  # noqa: N802
        """Say which of these blocks are cached here."""
        if len(request.blocks) > HOLDS_MAX:
            words = f"{len(request.blocks)} blocks are more than {HOLDS_MAX} for one call"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)
        try:
            held = await asyncio.to_thread(self._serving.holds, [ref_of(block) for block in request.blocks])
        except EXPECTED as error:
            await abort(context, error)
        return pb.HoldsReply(held=held)

    async def Push(  # noqa: N802
        self, requests: AsyncIterator[pb.PushPart], context: Any
    ) -> AsyncIterator[pb.PushReply]:
        """Take copies of blocks, and say of each whether it was admitted."""
        incoming: _Pushed | None = None
        async for part in requests:
            try:
                if incoming is None:
                    incoming = _Pushed(part, self._serving.block_bytes)
                incoming.add(part.data)
                if not incoming.is_whole:
                    continue
                admitted = await asyncio.to_thread(incoming.admit, self._serving)
                yield pb.PushReply(admitted=admitted, reason="" if admitted else "no room")
            except EXPECTED as error:
                await abort(context, error)
            incoming = None


class _Pushed:
    """A block on its way here."""

    def __init__(self, first: pb.PushPart, block_bytes: int) -> None:
        if not 0 < first.block_length <= block_bytes:
            raise ValueError(f"a block of {first.block_length} bytes; they have 1 to {block_bytes}")
        self._first: Final = first
        self._data: Final = bytearray(first.block_length)
        self._come_bytes = 0

    def add(self, data: bytes) -> None:
        end = self._come_bytes + len(data)
        if not data or end > len(self._data):
            raise ValueError(f"a part of {len(data)} bytes at {self._come_bytes} of {len(self._data)}")
        self._data[self._come_bytes : end] = data
        self._come_bytes = end

    @property
    def is_whole(self) -> bool:
        return self._come_bytes == len(self._data)

    def admit(self, serving: Serving) -> bool:
        """Cache it. Raises: OSError (it has changed on the way); as Serving.admit."""
        if crc32c(self._data) != self._first.crc32c:
            raise OSError("a block was damaged on its way")
        ref = ref_of(self._first.block)
        return serving.admit(ref, self._first.object_bytes, self._first.mtime_ns, memoryview(self._data))


def parts_of(ref: BlockRef, object_bytes: int, mtime_ns: int, data: memoryview) -> Sequence[pb.PushPart]:
    """Return the messages in which a block is pushed."""
    parts = [
        pb.PushPart(data=bytes(data[start : start + PUSH_PART_BYTES]))
        for start in range(0, len(data), PUSH_PART_BYTES)
    ]
    first = parts[0]
    first.block.CopyFrom(message_of(ref))
    first.object_bytes, first.mtime_ns = object_bytes, mtime_ns
    first.block_length, first.crc32c = len(data), crc32c(data)
    return parts


def message_of(ref: BlockRef) -> pb.BlockRef:
    """Return how a block is named to others."""
    return pb.BlockRef(
        dataset=ref.dataset, path=encoded(ref.path), version=encoded(ref.version), number=ref.number
    )


def ref_of(block: pb.BlockRef) -> BlockRef:
    """Read which block is meant."""
    return BlockRef(block.dataset, decoded(block.path), decoded(block.version), block.number)


def _object(found: RemoteObject) -> pb.Object:
    return pb.Object(
        path=encoded(found.path),
        size=found.size,
        mtime_ns=found.mtime_ns,
        version=encoded(found.version),
        is_dir=found.is_dir,
        age_ns=found.age_ns,
    )
