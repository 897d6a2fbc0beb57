"""Frames: the form in which peers ask each other for blocks and objects, and answer.

A frame is a head of 32 bytes and a body. Little-endian, of fixed widths, versioned; every length is checked
before anything is made of it. A CRC-32C covers head and body, so that no bit of a question or an answer can
change unseen, and each answer names by a hash which object or block it is about. The same frames go over
sockets (forebay.peer.data) and over gRPC (forebay.peer.service.blocks). Nothing here does I/O.

| head | bytes | |
|---|---|---|
| magic, version | 2, 1 | ``fb``, 1 |
| kind | 1 | what is asked, or how it is answered |
| id | 4 | the asker's name for the request; of a batch, each request has its own |
| body length | 4 | |
| begin, total | 4, 4 | where in the data of the answer this body lies, and how much it is in all, or 0 |
| identity | 8 | which object or block an answer is about |
| crc | 4 | CRC-32C of the head before it and of the body |

Data longer than PIECE_BYTES_MAX goes in several frames, in order. Those of other requests may lie between.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

from forebay.peer._checksum import crc32c
from forebay.peer._frames import identity_of as identity_of
from forebay.peer._frames import pack_blocks, parse_blocks
from forebay.remote import BlockRequest, RemoteObject

Data: TypeAlias = bytes | bytearray | memoryview

MAGIC: Final = b"fb"
VERSION: Final = 1

PIECE_BYTES_MAX: Final = 1 << 20
# Questions, and answers other than data: a page of a listing is the longest.
BODY_BYTES_MAX: Final = 1 << 20
REQUESTS_MAX: Final = 1024
BLOCK_BYTES_MAX: Final = 1 << 30
_TEXT_BYTES_MAX: Final = (1 << 16) - 1
_ERROR_BYTES_MAX: Final = 1 << 10

_HEAD: Final = struct.Struct("<2sBBIIIIQ")
_CRC: Final = struct.Struct("<I")
HEAD_BYTES: Final = _HEAD.size + _CRC.size
# lengths of dataset and path, offset, length
_OBJECT_QUESTION: Final = struct.Struct("<HHQI")
# lengths of path and version, is_dir, size, mtime_ns, age_ns
_OBJECT: Final = struct.Struct("<HHBxxxQqQ")
_HELLO: Final = struct.Struct("<HH")


class Kind(IntEnum):
    """What a frame is: a question (below 64), or an answer."""

    HELLO = 1  # the first of a connection
    READ = 2  # a batch of blocks
    TOUCH = 3  # an object, and bytes of it
    STAT = 4
    LIST = 5
    VIEW = 6

    DATA = 64
    OBJECT = 65  # the object; after it DATA, if bytes were asked for
    PAGE = 66  # objects of a listing; it ends with an empty DATA
    FETCHING = 67  # not here, but being fetched
    PROGRESS = 68  # still being fetched
    MISS = 69  # not here, and only what is cached was asked for
    STALE = 70  # the source has another version
    NOT_FOUND = 71  # the source says so
    FORBIDDEN = 72  # the source says so
    NOT_ATTACHED = 73
    BUSY = 74  # too much is asked for at once, or the member is about to leave
    ERROR = 75
    REFUSED = 76  # by the member: not with this token, not by this protocol


QUESTIONS: Final = frozenset(kind for kind in Kind if kind < Kind.DATA)


class FrameError(ValueError):
    """What came is no frame, or none that may come there; says what is wrong with it."""


class Head(NamedTuple):
    """The head of a frame; crc is that of the head's other fields and the body."""

    kind: Kind
    id: int
    body_bytes: int
    begin: int
    total: int
    identity: int
    crc: int
    crc_of_head: int

    def check(self, body: Data) -> None:
        """Hold head and body to the checksum. Raises: FrameError."""
        found = crc32c(body, self.crc_of_head)
        if found != self.crc:
            raise FrameError(
                f"{self.kind.name} frame of request {self.id}: checksum {found:#010x}, not {self.crc:#010x}"
            )


class ReadRequest(NamedTuple):
    """One block that is asked for; length is that of the block, as the asker knows it."""

    id: int
    only_cached: bool
    dataset: str
    path: str
    version: str
    number: int
    length: int


class ObjectRequest(NamedTuple):
    """An object or directory; offset and length of the bytes that TOUCH wants."""

    dataset: str
    path: str
    offset: int = 0
    length: int = 0


_KINDS: Final = {int(kind): kind for kind in Kind}


def pack_head(
    kind: Kind, id: int, body: Data, body_bytes: int, begin: int = 0, total: int = 0, identity: int = 0
) -> bytes:
    """Return the head of a frame with that body, whose checksum is computed here."""
    head = _HEAD.pack(MAGIC, VERSION, kind, id, body_bytes, begin, total, identity)
    return head + _CRC.pack(crc32c(body, crc32c(head)))


def pack_frame(kind: Kind, id: int, body: bytes = b"", identity: int = 0) -> bytes:
    """Return a whole frame, for bodies that are no data. The caller keeps to BODY_BYTES_MAX."""
    return pack_head(kind, id, body, len(body), identity=identity) + body


def parse_head(head: Data) -> Head:
    """Return the fields of a head of HEAD_BYTES bytes; its checksum is held when the body is there.

    Raises: FrameError (it is none; longer than may be).
    """
    with memoryview(head) as view:
        if view.nbytes != HEAD_BYTES:
            raise FrameError(f"a head of {view.nbytes} bytes, not {HEAD_BYTES}")
        magic, version, code, id, body_bytes, begin, total, identity = _HEAD.unpack_from(view)
        (crc,) = _CRC.unpack_from(view, _HEAD.size)
        if magic != MAGIC:
            raise FrameError(f"not a frame: it begins with {bytes(view[:8])!r}")
        crc_of_head = crc32c(view[: _HEAD.size])
    if version != VERSION:
        raise FrameError(f"frames of version {version}; this is version {VERSION}")
    kind = _KINDS.get(code)
    if kind is None:
        raise FrameError(f"a frame of unknown kind {code}")
    limit = PIECE_BYTES_MAX if kind is Kind.DATA else BODY_BYTES_MAX
    if body_bytes > limit:
        raise FrameError(f"{kind.name} frame of request {id}: {body_bytes} bytes, at most {limit}")
    if total > BLOCK_BYTES_MAX:
        raise FrameError(
            f"{kind.name} frame of request {id}: data of {total} bytes, at most {BLOCK_BYTES_MAX}"
        )
    if kind is Kind.DATA and begin + body_bytes > total:
        raise FrameError(f"DATA frame of request {id}: bytes {begin} to {begin + body_bytes} of {total}")
    return Head(kind, id, body_bytes, begin, total, identity, crc, crc_of_head)


def pack_read(requests: Sequence[BlockRequest], first_id: int, *, only_cached: bool = False) -> bytes:
    """Return a READ frame for these blocks, the ids of which count on from first_id.

    Raises: ValueError (more than REQUESTS_MAX, or names too long for a frame).
    """
    if not 0 < len(requests) <= REQUESTS_MAX:
        raise ValueError(f"{len(requests)} blocks in a batch, not 1 to {REQUESTS_MAX}")
    return _whole_question(Kind.READ, first_id, pack_blocks(requests, first_id, only_cached))


def parse_read(body: Data) -> list[ReadRequest]:
    """Return what the body of a READ frame asks for. Raises: FrameError."""
    try:
        requests = parse_blocks(body, ReadRequest, REQUESTS_MAX, BLOCK_BYTES_MAX)
    except ValueError as error:
        raise FrameError(f"READ frame: {error}") from None
    if not requests:
        raise FrameError("READ frame: asks for no block")
    return requests


def pack_object_question(kind: Kind, id: int, request: ObjectRequest) -> bytes:
    """Return a TOUCH, STAT or LIST frame. Raises: ValueError (names or figures too large for a frame)."""
    if not (0 <= request.offset < 1 << 64 and 0 <= request.length <= BLOCK_BYTES_MAX):
        raise ValueError(f"{request.path}: {request.length} bytes at {request.offset} fit into no frame")
    names = [_encoded(text) for text in (request.dataset, request.path)]
    figures = _OBJECT_QUESTION.pack(*map(len, names), request.offset, request.length)
    return _whole_question(kind, id, figures + b"".join(names))


def parse_object_question(kind: Kind, body: Data) -> ObjectRequest:
    """Return what the body of a TOUCH, STAT or LIST frame asks for. Raises: FrameError."""
    rest = _Rest(kind.name, body)
    *lengths, offset, length = rest.unpack(_OBJECT_QUESTION)
    if length > BLOCK_BYTES_MAX:
        raise FrameError(f"{kind.name} frame: {length} bytes, at most {BLOCK_BYTES_MAX}")
    dataset, path = map(rest.text, lengths)
    rest.end()
    return ObjectRequest(dataset, path, offset, length)


def pack_hello(hello: bytes, token: str | None) -> bytes:
    """Return a HELLO frame: a HelloRequest, and the token, which is empty for none. Raises: ValueError."""
    encoded = (token or "").encode("ascii")
    if max(len(hello), len(encoded)) > _TEXT_BYTES_MAX:
        raise ValueError(f"a greeting of {len(hello)} and a token of {len(encoded)} bytes fit into no frame")
    return _whole_question(Kind.HELLO, 0, _HELLO.pack(len(hello), len(encoded)) + hello + encoded)


def parse_hello(body: Data) -> tuple[bytes, str | None]:
    """Return the HelloRequest and the token of a HELLO frame. Raises: FrameError."""
    rest = _Rest("HELLO", body)
    hello_bytes, token_bytes = rest.unpack(_HELLO)
    hello, token = rest.take(hello_bytes), rest.take(token_bytes)
    rest.end()
    if not token.isascii():
        raise FrameError("HELLO frame: the token is not ASCII")
    return hello, token.decode("ascii") or None


def pack_objects(objects: Sequence[RemoteObject]) -> Iterator[bytes]:
    """Yield bodies that describe these objects, none longer than a frame takes.

    Raises: ValueError (a name too long for a frame, a figure that is out of all bounds).
    """
    parts: list[bytes] = []
    size_bytes = 0
    for path, size, mtime_ns, version, is_dir, age_ns in objects:
        names = [_encoded(text) for text in (path, version)]
        try:
            packed = _OBJECT.pack(*map(len, names), is_dir, size, mtime_ns, age_ns) + b"".join(names)
        except struct.error:
            raise ValueError(f"{path}: size {size} or time {mtime_ns} fit into no frame") from None
        if size_bytes + len(packed) > BODY_BYTES_MAX:
            yield b"".join(parts)
            parts, size_bytes = [], 0
        parts.append(packed)
        size_bytes += len(packed)
    if parts:
        yield b"".join(parts)


def parse_objects(body: Data) -> list[RemoteObject]:
    """Return the objects that a body describes. Raises: FrameError."""
    objects = []
    rest = _Rest("PAGE", body)
    while rest:
        *lengths, is_dir, size, mtime_ns, age_ns = rest.unpack(_OBJECT)
        path, version = map(rest.text, lengths)
        if is_dir > 1:
            raise FrameError(f"PAGE frame: {is_dir} where 1 says that {path!r} is a directory")
        objects.append(RemoteObject(path, size, mtime_ns, version, bool(is_dir), age_ns))
    return objects


def pack_text(text: str) -> bytes:
    """Return the body of an answer that is an error, cut to a length that any frame takes."""
    return text.encode("utf-8", "surrogateescape")[:_ERROR_BYTES_MAX]


def parse_text(body: Data) -> str:
    """Return what an answer that is an error says; what is not UTF-8 is shown by its codes."""
    return bytes(body)[:_ERROR_BYTES_MAX].decode("utf-8", "backslashreplace")


class _Rest:
    """What has not been parsed of a body."""

    def __init__(self, kind: str, body: Data) -> None:
        self._kind = kind
        self._view = memoryview(body).cast("B").toreadonly()
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._view)

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        at = self._advance(form.size)
        return form.unpack_from(self._view, at)

    def take(self, size_bytes: int) -> bytes:
        at = self._advance(size_bytes)
        return bytes(self._view[at : at + size_bytes])

    def text(self, size_bytes: int) -> str:
        return self.take(size_bytes).decode("utf-8", "surrogateescape")

    def end(self) -> None:
        if self:
            raise FrameError(f"{self._kind} frame: {len(self._view) - self._at} bytes too many")

    def _advance(self, size_bytes: int) -> int:
        at = self._at
        if size_bytes > len(self._view) - at:
            raise FrameError(
                f"{self._kind} frame: {size_bytes} bytes wanted at {at} of a body of {len(self._view)}"
            )
        self._at = at + size_bytes
        return at


def _encoded(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    if len(encoded) > _TEXT_BYTES_MAX:
        raise ValueError(
            f"{text[:100]!r}...: {len(encoded)} bytes, at most {_TEXT_BYTES_MAX} fit into a frame"
        )
    return encoded


def _whole_question(kind: Kind, id: int, body: bytes) -> bytes:
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"a {kind.name} frame of {len(body)} bytes, at most {BODY_BYTES_MAX}")
    return pack_frame(kind, id, body)
