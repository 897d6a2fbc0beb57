"""Where HTTP/1.1 messages begin and end in a byte stream, so that a proxy can count and address them.

A parser here is fed what a socket gives and does no I/O. It looks at as little as framing needs; what does
not look like HTTP/1.1 (TLS, HTTP/2, anything else) is passed through as raw bytes. Pipelined requests are
framed rightly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

HEAD_END: Final = b"\r\n\r\n"
HEAD_BYTES_MAX: Final = 64 << 10

_METHODS: Final = tuple(
    method + b" " for method in (b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH")
)


@dataclass(frozen=True)
class Piece:
    """Bytes to pass on: a whole request head (with first_line), part of a request's body, or raw."""

    data: bytes
    first_line: str | None = None
    raw: bool = False


class RequestStream:
    """Cuts what a client sends into request heads, held back until complete, and everything else.

    One connection's, for one thread.
    """

    def __init__(self) -> None:
        """Expect the first request."""
        self._held = b""
        self._body_left = 0
        self._chunked = False
        self._raw = False

    def feed(self, data: bytes) -> list[Piece]:
        """Take in data and return what may be passed on now, in order."""
        self._held += data
        pieces: list[Piece] = []
        while self._held and (piece := self._next_piece()) is not None:
            pieces.append(piece)
        return pieces

    def _next_piece(self) -> Piece | None:
        if self._raw:
            return Piece(self._take(len(self._held)), raw=True)
        if self._body_left:
            data = self._take(min(self._body_left, len(self._held)))
            self._body_left -= len(data)
            return Piece(data)
        if self._chunked:
            return self._chunk_line()
        return self._head()

    def _take(self, count: int) -> bytes:
        data, self._held = self._held[:count], self._held[count:]
        return data

    def _head(self) -> Piece | None:
        if not any(self._held[: len(method)] == method[: len(self._held)] for method in _METHODS):
            self._raw = True
            return self._next_piece()
        end = self._held.find(HEAD_END)
        if end < 0:
            self._raw = len(self._held) > HEAD_BYTES_MAX
            return self._next_piece() if self._raw else None
        head = self._take(end + len(HEAD_END))
        first_line, *header_lines = head[:end].decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (h.partition(":") for h in header_lines)
        }
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        length = headers.get("content-length", "0")
        self._body_left = int(length) if length.isascii() and length.isdigit() and not self._chunked else 0
        return Piece(head, first_line)

    def _chunk_line(self) -> Piece | None:
        """Pass on a chunk's size line and expect its data; a chunk of size zero ends the body."""
        end = self._held.find(b"\r\n")
        if end < 0:
            return None
        try:
            size = int(self._held[:end].split(b";")[0], 16)
        except ValueError:
            self._raw = True
            return self._next_piece()
        if size:
            self._body_left = size + len(b"\r\n")
            return Piece(self._take(end + len(b"\r\n")))
        # The last chunk: trailers, if any, end with an empty line as a head does.
        end = self._held.find(HEAD_END)
        if end < 0:
            return None
        self._chunked = False
        return Piece(self._take(end + len(HEAD_END)))


class BodyFinder:
    """Finds where a response's body begins, behind the heads of interim responses (100 Continue) too."""

    def __init__(self) -> None:
        """Expect the first byte of a response."""
        self._head = b""
        self._in_body = False

    def feed(self, data: bytes | bytearray | memoryview) -> int:
        """Return the offset in data of the first byte that belongs to the body, len(data) if none does.

        What does not begin as an HTTP/1 response does is body from its first byte on.
        """
        if self._in_body:
            return 0
        before = len(self._head)
        self._head += bytes(data[: HEAD_BYTES_MAX - before])
        if not self._head.startswith(b"HTTP/1."[: len(self._head)]):
            self._in_body = True
            return 0
        start = 0
        while (end := self._head.find(HEAD_END, start)) >= 0:
            interim = self._head[start + 9 : start + 10] == b"1"
            start = end + len(HEAD_END)
            if not interim:
                self._in_body = True
                return max(start - before, 0)
        self._in_body = len(self._head) >= HEAD_BYTES_MAX
        return len(data)
