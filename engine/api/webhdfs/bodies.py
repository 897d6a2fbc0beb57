"""Bodies: files sent from views of what is cached, listings sent as they are read, and files taken in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import Final, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from forebay.api.hadoop.status import FileStatus
from forebay.api.hadoop.streams import InputStream, OutputStream
from forebay.api.webhdfs import forms
from forebay.config import MIB

_T = TypeVar("_T")

# Of a file that are sent at a time, within one block: a slow client may make a copy of so much necessary.
_PIECE_BYTES: Final = MIB
# Statuses that are turned to text at a time.
_STATUSES: Final = 1_000


class Threads:
    """Runs what may wait, so that the event loop never does."""

    def __init__(self, executor: Executor) -> None:
        """Use these threads."""
        self._executor: Final = executor

    async def run(self, call: Callable[[], _T]) -> _T:
        """Return what a call in a thread returns, and raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


class FileBody(Response):
    """length bytes of an open file from offset on, and the file is closed."""

    media_type = "application/octet-stream"

    def __init__(
        self, stream: InputStream, offset: int, length: int, threads: Threads, stall_s: float
    ) -> None:
        """Send what is there, as Content-Length says; a client may stand still for stall_s."""
        super().__init__(headers={"content-length": str(length)})
        self._stream: Final = stream
        self._offset: Final = offset
        self._length: Final = length
        self._threads: Final = threads
        self._stall_s: Final = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Raises: what reading raises; TimeoutError: then the connection breaks off."""
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            part = self._only_part()
            if part is None:
                await self._send_parts(receive, send)
            else:
                await self._send(send, part, more=False)
        finally:
            self._stream.close()

    async def _send_parts(self, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_gone(receive))
        try:
            position, end = self._offset, self._offset + self._length
            while position < end and not gone.done():
                part = await self._part(position, end)
                position += len(part)
                await self._send(send, part, more=position < end)
        finally:
            gone.cancel()

    async def _send(self, send: Send, part: memoryview, *, more: bool) -> None:
        async with asyncio.timeout(self._stall_s):
            await send({"type": "http.response.body", "body": part, "more_body": more})

    def _only_part(self) -> memoryview | None:
        """Return all that is to be sent, if that is one piece and is cached."""
        end = self._offset + self._length
        if self._piece_end(self._offset, end) != end:
            return None
        return self._known_part(self._offset, end)

    async def _part(self, position: int, end: int) -> memoryview:
        """Return what comes next, as much of it as is sent at a time."""
        part = self._known_part(position, end)
        if part is None:
            length = self._piece_end(position, end) - position
            part = await self._threads.run(lambda: self._stream.snapshot.read(position, length))
        return part

    def _known_part(self, position: int, end: int) -> memoryview | None:
        """Return what comes next as ``_part`` if it is cached."""
        return self._stream.snapshot.known(position, self._piece_end(position, end) - position)

    def _piece_end(self, position: int, end: int) -> int:
        piece_bytes = min(self._stream.snapshot.block_bytes, _PIECE_BYTES)
        return min(end, position - position % piece_bytes + piece_bytes)


class ListingBody(Response):
    """What lies in a directory, as it is read: nothing holds all of it."""

    media_type = "application/json"

    def __init__(
        self, first: list[FileStatus], rest: Iterator[FileStatus], threads: Threads, stall_s: float
    ) -> None:
        """Send the first, which were read to see whether it can be, and the rest."""
        super().__init__(headers={"transfer-encoding": "chunked"})
        del self.headers["content-length"]
        self._first: Final = first
        self._rest: Final = rest
        self._threads: Final = threads
        self._stall_s: Final = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer. Raises: what listing raises; TimeoutError: then the connection breaks off."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        text: str | None = '{"FileStatuses":{"FileStatus":[' + forms.statuses_text(self._first)
        while text is not None:
            async with asyncio.timeout(self._stall_s):
                await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
            text = await self._threads.run(self._next_text)
        await send({"type": "http.response.body", "body": b"]}}"})

    def _next_text(self) -> str | None:
        statuses = list(islice(self._rest, _STATUSES))
        return "," + forms.statuses_text(statuses) if statuses else None


async def take_body(request: Request, stream: OutputStream, threads: Threads, stall_s: float) -> None:
    """Write the body of a request to a file, which is there once all has come.

    After an exception nothing is left of it. Raises: ClientDisconnect; TimeoutError (the client stood still);
    as ``OutputStream.close``.
    """
    chunks = request.stream()
    try:
        while True:
            async with asyncio.timeout(stall_s):
                chunk = await anext(chunks, None)
            if chunk is None:
                break
            if chunk:
                await threads.run(lambda data=chunk: stream.write(data))  # type: ignore[misc]
        await threads.run(stream.close)
    finally:
        # Not waited for: nothing may be left, also where this is cancelled.
        stream.abort()


async def first_of(listing: Iterator[FileStatus], threads: Threads) -> list[FileStatus]:
    """Return the first of a listing. Raises: what listing raises."""
    return await threads.run(lambda: list(islice(listing, _STATUSES)))


async def _gone(receive: Receive) -> None:
    """Return when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
