"""Peer.Blocks: frames over a bidirectional stream, answered by what answers those of the data port."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Final

import grpc

from forebay.peer.answer import Answerer
from forebay.peer.frames import Data, FrameError
from forebay.peer.service.message import as_it_is, pack, unpack

# Of answers that the asker has not taken; more wait where they are made.
_WAITING_BYTES_MAX: Final = 4 << 20
_STALL_S: Final = 30.0


class BlocksService:
    """Answers the stream. Its loop is grpc.aio's; the answers are made in threads."""

    def __init__(
        self, answerer: Answerer, caller: Callable[[], Any], threads: Executor | None = None
    ) -> None:
        """Answer by answerer; caller returns who asks, within a call. None: in the loop's own threads."""
        self._answerer: Final = answerer
        self._caller: Final = caller
        self._threads: Final = threads

    def handler(self) -> grpc.RpcMethodHandler:
        """Return the handler to register for ``/forebay.v1.Peer/Blocks``: messages pass as they are."""
        return grpc.stream_stream_rpc_method_handler(self.Blocks, as_it_is, as_it_is)

    async def Blocks(  # noqa: N802  (as in forebay.proto)
        self, requests: AsyncIterator[bytes], context: Any
    ) -> AsyncIterator[bytes]:
        """Answer the frames of each message; several messages may be under way."""
        outbox = _Outbox(asyncio.get_running_loop())
        asking = asyncio.create_task(self._ask(requests, self._caller(), outbox))
        try:
            while (message := await outbox.take()) is not None:
                yield message
            await asking
        except FrameError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            asking.cancel()
            outbox.close()

    async def _ask(self, requests: AsyncIterator[bytes], caller: Any, outbox: _Outbox) -> None:
        """Have each question answered, in order where they are hits. Raises: FrameError."""
        loop, answer = asyncio.get_running_loop(), self._answerer.answer
        try:
            async for message in requests:
                for head, body in unpack(message):
                    await loop.run_in_executor(self._threads, answer, head, body, caller, outbox)
        except OSError:  # the asker is gone
            return
        finally:
            outbox.close()


class _Outbox:
    """Messages on their way from the threads that make them to the loop that sends them: a sink."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop: Final = loop
        self._messages: Final[deque[bytes]] = deque()
        self._changed: Final = threading.Condition()
        self._arrived: Final = asyncio.Event()
        self._waiting_bytes = 0
        self._is_closed = False

    def send(self, parts: Sequence[Data]) -> None:
        """Queue the frames as one message, once there is room. Raises: OSError."""
        message = pack(parts)
        with self._changed:
            if not self._changed.wait_for(self._has_room, _STALL_S):
                raise TimeoutError(f"no answer was taken for {_STALL_S:g} s")
            self._queue(message)

    def send_at_once(self, frame: bytes) -> None:
        """Queue a small frame, if there is room and nothing else."""
        with self._changed:
            if not self._waiting_bytes and not self._is_closed:
                self._queue(pack([frame]))

    async def take(self) -> bytes | None:
        """Return the next message; None when there will be none."""
        while True:
            with self._changed:
                if self._messages:
                    message = self._messages.popleft()
                    self._waiting_bytes -= len(message)
                    self._changed.notify_all()
                    return message
                if self._is_closed:
                    return None
                self._arrived.clear()
            await self._arrived.wait()

    def close(self) -> None:
        """Take no more messages. In the loop."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._arrived.set()

    def _has_room(self) -> bool:
        return self._is_closed or self._waiting_bytes < _WAITING_BYTES_MAX

    def _queue(self, message: bytes) -> None:
        if self._is_closed:
            raise ConnectionError("the stream has ended")
        self._messages.append(message)
        self._waiting_bytes += len(message)
        if len(self._messages) == 1:
            self._loop.call_soon_threadsafe(self._arrived.set)
