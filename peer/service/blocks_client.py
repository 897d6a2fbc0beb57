"""Asks one peer over the gRPC stream Peer.Blocks, where its data port is not to be had.

All threads share one stream. Never in a forked child: gRPC does not survive fork.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc

from forebay.errors import ConfigError
from forebay.peer.data.deadline import Watch
from forebay.peer.data.errors import down, refused
from forebay.peer.data.link import Link
from forebay.peer.data.wire import CLIENT_TICK_S
from forebay.peer.frames import Data, FrameError, Head
from forebay.peer.service.message import METHOD, as_it_is, pack, unpack

_REFUSALS: Final = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_IDS: Final = 1 << 32


class StreamLink(Link):
    """A link over gRPC, of the process that made it. Threads: any."""

    def __init__(self, address: str, channel: Callable[[], grpc.Channel]) -> None:
        """Ask over a channel that is the link's from then on; it is made with the first question."""
        super().__init__(address)
        self._pid: Final = os.getpid()
        self._make: Final = channel
        self._lock: Final = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stream: _Stream | None = None
        self._is_closed = False

    @property
    def in_flight(self) -> int:
        """How many questions are under way."""
        return 0 if self._stream is None else self._stream.question_count

    def close(self) -> None:
        """End the stream and the channel; may be called twice."""
        with self._lock:
            self._is_closed = True
            channel, self._channel = self._channel, None
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        if channel is not None:
            channel.close()

    @contextmanager
    def _connection(self, watch: Watch) -> Iterator[_Question]:
        """Give a share of the stream, which is made anew if it has ended."""
        question = _Question(self._open_stream(), self.address)
        try:
            yield question
        except FrameError as error:
            raise down(self.address, error) from error
        finally:
            question.end()

    def _open_stream(self) -> _Stream:
        if self._pid != os.getpid():
            raise down(self.address, "gRPC cannot be used in a forked process")
        with self._lock:
            if self._is_closed:
                raise down(self.address, "the link to the peer was closed")
            try:
                if self._channel is None:
                    self._channel = self._make()
                if self._stream is None or self._stream.has_ended:
                    self._stream = _Stream(self._channel, self.address)
            except ConfigError as error:  # a token that is not there any more
                raise refused(self.address, str(error)) from error
            return self._stream


class _Stream:
    """One call of Blocks: what is asked goes into it, and a thread hands out what comes. Threads: any."""

    def __init__(self, channel: grpc.Channel, address: str) -> None:
        self._address: Final = address
        self._asked: Final[queue.SimpleQueue[bytes | None]] = queue.SimpleQueue()
        self._lock: Final = threading.Lock()
        self._answers: Final[dict[int, queue.SimpleQueue[_Arrived]]] = {}
        self._questions: Final[set[queue.SimpleQueue[_Arrived]]] = set()
        self._ids: Final = itertools.count(1)
        self._end: OSError | None = None
        call = channel.stream_stream(METHOD, as_it_is, as_it_is)
        self._call: Final[Any] = call(iter(self._asked.get, None))
        threading.Thread(target=self._receive, name=f"forebay-blocks {address}", daemon=True).start()

    @property
    def has_ended(self) -> bool:
        return self._end is not None

    @property
    def question_count(self) -> int:
        return len(self._questions)

    def register(self, count: int, arrived: queue.SimpleQueue[_Arrived]) -> range:
        """Return ids, whose answers go into the queue."""
        with self._lock:
            ids = range(first := next(self._ids), first + count)
            for _ in range(count - 1):
                next(self._ids)
            if ids.stop > _IDS:
                self._call.cancel()
                raise down(self._address, "the stream has used up its ids")
            if self._end is not None:
                raise self._end
            self._answers.update(dict.fromkeys(ids, arrived))
            self._questions.add(arrived)
            return ids

    def forget(self, ids: range, arrived: queue.SimpleQueue[_Arrived]) -> None:
        with self._lock:
            for id in ids:
                self._answers.pop(id, None)
            self._questions.discard(arrived)

    def ask(self, frame: bytes) -> None:
        self._asked.put(pack([frame]))

    def close(self) -> None:
        self._asked.put(None)
        self._call.cancel()

    def _receive(self) -> None:
        """Hand out frames until the call ends, and then why it did."""
        end: OSError = down(self._address, "the stream has ended")
        try:
            for message in self._call:
                for head, body in unpack(message):
                    # One that is not wanted any more was cancelled.
                    if (arrived := self._answers.get(head.id)) is not None:
                        arrived.put((head, body))
        except FrameError as error:
            end = down(self._address, error)
            self._call.cancel()
        except ConfigError as error:  # the token is not there any more
            end = refused(self._address, str(error))
        except grpc.RpcError as error:
            text = f"{error.code().name}: {error.details()}"
            is_refusal = error.code() in _REFUSALS
            end = refused(self._address, text) if is_refusal else down(self._address, text)
        except Exception as error:  # noqa: BLE001  (else who waits would, and nobody make another stream)
            end = down(self._address, f"{type(error).__name__}: {error}")
            self._call.cancel()
        self._asked.put(None)
        with self._lock:
            self._end = end
            for arrived in self._questions:
                arrived.put(end)


_Arrived = tuple[Head, memoryview] | OSError


class _Question:
    """One caller's share of a stream: a carrier. Threads: one."""

    def __init__(self, stream: _Stream, address: str) -> None:
        self._stream = stream
        self._address = address
        self._arrived: queue.SimpleQueue[_Arrived] = queue.SimpleQueue()
        self._ids = range(0)
        self._body = memoryview(b"")

    def take_ids(self, count: int) -> int:
        self._ids = self._stream.register(count, self._arrived)
        return self._ids.start

    def ask(self, frame: bytes, watch: Watch) -> None:
        self._stream.ask(frame)

    def head(self, watch: Watch) -> Head:
        """Wait for the next frame, whose body has come with it."""
        while True:
            try:
                arrived = self._arrived.get(timeout=CLIENT_TICK_S)
            except queue.Empty:
                try:
                    watch.hold()
                except TimeoutError as error:
                    raise down(self._address, error) from error
                continue
            if isinstance(arrived, OSError):
                raise arrived
            watch.heard()
            head, self._body = arrived
            return head

    def fill(self, head: Head, into: memoryview, watch: Watch) -> None:
        into[:] = self._body

    def body(self, head: Head, watch: Watch) -> Data:
        return self._body

    def end(self) -> None:
        self._stream.forget(self._ids, self._arrived)
