"""The message Frames of forebay.proto, made and read without copying what it carries.

It has one field, bytes of number 1, so that it is a tag, a length and the frames. gRPC is given functions of
this module in the place of the ones that protoc makes, which copy twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from forebay.peer.frames import HEAD_BYTES, Data, FrameError, Head, parse_head

METHOD: Final = "/forebay.v1.Peer/Blocks"

_TAG: Final = 0x0A
_LENGTH_BYTES_MAX: Final = 5


def pack(parts: Sequence[Data]) -> bytes:
    """Return a message that carries these frames; small ones and whole bursts alike."""
    length = sum(map(len, parts))
    prefix = bytearray((_TAG,))
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return b"".join([prefix, *parts])


def unpack(message: bytes) -> Iterator[tuple[Head, memoryview]]:
    """Yield the frames that a message carries, each held to its checksum. Raises: FrameError."""
    view = memoryview(message)
    at = _frames_at(view)
    while at < len(view):
        head = parse_head(view[at : at + HEAD_BYTES])
        at += HEAD_BYTES
        body = view[at : at + head.body_bytes]
        if len(body) != head.body_bytes:
            raise FrameError(f"{head.kind.name} frame: {len(body)} of {head.body_bytes} bytes in its message")
        head.check(body)
        yield head, body
        at += head.body_bytes


def as_it_is(message: bytes) -> bytes:
    """Return the message: what gRPC calls instead of a serializer."""
    return message


def _frames_at(view: memoryview) -> int:
    """Return where the frames begin. Raises: FrameError (it is no message of one field that ends with it)."""
    if not len(view):
        return 0
    length = 0
    for index in range(min(_LENGTH_BYTES_MAX, len(view) - 1)):
        byte = view[1 + index]
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if view[0] != _TAG or length != len(view) - index - 2:
                break
            return index + 2
    raise FrameError("the message is no Frames of forebay.v1, with one field of bytes")
