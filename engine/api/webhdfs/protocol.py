"""The protocol of one connection: uvicorn's, with the bounds that it lacks.

Whatever a client sends or does not, a connection ends: heads and trailers have a length and a time, what is
left of a request that was answered has to come within a time, and a client that takes nothing does not keep
what is closed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from forebay.api.webhdfs.limits import GatewayLimits

# Around the name and the value of a field.
_FIELD_BYTES: Final = 4


def protocol_of(limits: GatewayLimits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with these limits."""

    class Limited(BoundedProtocol):
        bounds = limits

    return Limited


class BoundedProtocol(HttpToolsProtocol):
    """One connection. bounds: its limits."""

    bounds: GatewayLimits

    # Of a head, or behind a body: the fields that were told of, and what has come without an end to it.
    _fields_bytes = 0
    _unended_bytes = 0
    _has_moved_on = False
    # When the head, or what is left of an answered request and the head behind it, has to have come. The
    # timer is left as it is while it ends before that: most requests make none.
    _due_s: float | None = None
    _head_timer: asyncio.TimerHandle | None = None
    _head_timer_s = 0.0
    # Looks now and then whether anything is still taken of what a closed connection has left to send.
    _closing_timer: asyncio.TimerHandle | None = None
    _left_bytes = -1
    # Requests that are not answered wholly, the first first: more than one where they are pipelined.
    _cycles: deque[RequestResponseCycle]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; or end, where there are too many."""
        super().connection_made(transport)
        self._cycles = deque()
        if len(self.connections) > self.bounds.connections:
            transport.abort()
            return
        self._await_head(self.bounds.head_s)
        self._watch_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all requests under way."""
        for timer in (self._head_timer, self._closing_timer):
            if timer is not None:
                timer.cancel()
        for cycle in self._cycles:
            cycle.disconnected = True
            cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._has_moved_on = False
        super().data_received(data)
        if self._has_moved_on or self.transport.is_closing():
            return
        # All of it was of a head, or behind a body, and that is not at its end.
        self._unended_bytes += len(data)
        if self._unended_bytes > self.bounds.head_bytes:
            self.send_400_response("The head of the request is too long.")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, but never in the middle of an answer to one before."""
        if any(cycle.response_started and not cycle.response_complete for cycle in self._cycles):
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        """Give the head its time."""
        self._fields_bytes = self._unended_bytes = 0
        self._await_head(self.bounds.head_s)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count it."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count it: a trailer, too, is told of here."""
        self._count(len(name) + len(value) + _FIELD_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to answer."""
        self._due_s = None
        self._has_moved_on = True
        super().on_headers_complete()
        self._cycles.append(self.cycle)
        if self.parser.should_upgrade():
            # The parser takes all that follows for another protocol.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take some of a body."""
        self._has_moved_on = True
        self._fields_bytes = self._unended_bytes = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Give the next request its time, and what is left of this one."""
        while self._cycles and self._cycles[0].response_complete:
            self._cycles.popleft()
        super().on_response_complete()
        if not self._cycles and self._due_s is None and not self.transport.is_closing():
            self._await_head(self.bounds.idle_s)

    def _count(self, length: int) -> None:
        self._fields_bytes += length
        if self._fields_bytes > self.bounds.head_bytes:
            # The parser ends with it, and the request is refused.
            raise ValueError("the head of the request is too long")

    def _await_head(self, within_s: float) -> None:
        self._due_s = due_s = self.loop.time() + within_s
        if self._head_timer is not None:
            if self._head_timer_s <= due_s:
                return
            self._head_timer.cancel()
        self._set_head_timer(due_s)

    def _set_head_timer(self, due_s: float) -> None:
        self._head_timer_s = due_s
        self._head_timer = self.loop.call_at(due_s, self._look_at_head)

    def _look_at_head(self) -> None:
        self._head_timer = None
        if self._due_s is None:
            return
        if self._due_s > self.loop.time():
            self._set_head_timer(self._due_s)
        else:
            # What was answered may still be on its way.
            self.transport.close()

    def _watch_closing(self) -> None:
        left = self.transport.get_write_buffer_size() if self.transport.is_closing() else -1
        if left >= 0 and left == self._left_bytes:
            self.transport.abort()
            return
        self._left_bytes = left
        self._closing_timer = self.loop.call_later(self.bounds.stall_s, self._watch_closing)
