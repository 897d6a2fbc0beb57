"""Frames: what is packed is parsed again as it was, and bytes that are no frame are a FrameError."""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import suppress

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.peer import frames
from forebay.peer._checksum import crc32c
from forebay.peer.frames import HEAD_BYTES, FrameError, Head, Kind, ObjectRequest, ReadRequest
from forebay.remote import BlockRequest, RemoteObject

U32 = (1 << 32) - 1
U64 = (1 << 64) - 1
# Of any bytes, as names of objects are.
names = st.binary(max_size=80).map(lambda name: name.decode("utf-8", "surrogateescape"))
lengths = st.integers(0, frames.BLOCK_BYTES_MAX)
numbers = st.integers(0, U64)
blocks = st.builds(BlockRequest, names, names, names, numbers, st.just(0), lengths)
objects = st.builds(
    RemoteObject, names, numbers, st.integers(-(1 << 63), (1 << 63) - 1), names, st.booleans(), numbers
)


def split(frame: bytes) -> tuple[Head, bytes]:
    """Parse a whole frame as a receiver does."""
    head = frames.parse_head(frame[:HEAD_BYTES])
    body = frame[HEAD_BYTES:]
    assert len(body) == head.body_bytes
    head.check(body)
    return head, body


def parse(frame: bytes) -> object:
    """Parse bytes as far as their kind says."""
    head, body = split(frame)
    if head.kind is Kind.READ:
        return frames.parse_read(body)
    if head.kind is Kind.HELLO:
        return frames.parse_hello(body)
    if head.kind in (Kind.TOUCH, Kind.STAT, Kind.LIST):
        return frames.parse_object_question(head.kind, body)
    if head.kind in (Kind.OBJECT, Kind.PAGE):
        return frames.parse_objects(body)
    return frames.parse_text(body)


@pytest.mark.parametrize(
    ("data", "crc"),
    [(b"", 0), (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43)],
)
def test_the_checksum_is_crc32c(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc
    assert crc32c(data[3:], crc32c(data[:3])) == crc
    # Long enough for the lock to be let go of.
    assert crc32c(memoryview(data * 10_000)) == crc32c(bytearray(data * 10_000))


@given(st.lists(blocks, min_size=1, max_size=20), st.integers(0, U32 - 20), st.booleans())
def test_a_batch_comes_back(requests: list[BlockRequest], first_id: int, only_cached: bool) -> None:
    head, body = split(frames.pack_read(requests, first_id, only_cached=only_cached))
    assert head.kind is Kind.READ
    assert frames.parse_read(body) == [
        ReadRequest(id, only_cached, block.dataset, block.path, block.version, block.number, block.length)
        for id, block in enumerate(requests, first_id)
    ]


@given(st.sampled_from([Kind.TOUCH, Kind.STAT, Kind.LIST]), names, names, numbers, lengths)
def test_a_question_about_an_object_comes_back(
    kind: Kind, dataset: str, path: str, offset: int, length: int
) -> None:
    request = ObjectRequest(dataset, path, offset, length)
    head, body = split(frames.pack_object_question(kind, 7, request))
    assert (head.kind, head.id) == (kind, 7)
    assert frames.parse_object_question(kind, body) == request


@given(st.lists(objects, max_size=20))
def test_objects_come_back(described: list[RemoteObject]) -> None:
    bodies = list(frames.pack_objects(described))
    assert [each for body in bodies for each in frames.parse_objects(body)] == described


def test_a_long_listing_takes_several_frames() -> None:
    described = [RemoteObject("x" * 60_000, 1, 2, str(number), False, 3) for number in range(40)]
    bodies = list(frames.pack_objects(described))
    assert len(bodies) > 1
    assert max(map(len, bodies)) <= frames.BODY_BYTES_MAX
    assert [each for body in bodies for each in frames.parse_objects(body)] == described


@given(st.binary(max_size=200), st.text(st.characters(codec="ascii"), max_size=80))
def test_a_greeting_comes_back(hello: bytes, token: str) -> None:
    _, body = split(frames.pack_hello(hello, token))
    assert frames.parse_hello(body) == (hello, token or None)


@given(st.binary(max_size=300))
def test_random_bytes_are_a_frame_error(noise: bytes) -> None:
    with pytest.raises(FrameError):
        frames.parse_head(noise[:HEAD_BYTES])


@given(st.sampled_from([Kind.READ, Kind.HELLO, Kind.TOUCH, Kind.LIST, Kind.PAGE]), st.binary(max_size=300))
def test_a_body_of_random_bytes_is_parsed_or_a_frame_error(kind: Kind, noise: bytes) -> None:
    with suppress(FrameError):
        parse(frames.pack_frame(kind, 1, noise))


@given(st.lists(blocks, min_size=1, max_size=3), st.data())
def test_no_bit_can_change_unseen(requests: list[BlockRequest], data: st.DataObject) -> None:
    frame = bytearray(frames.pack_read(requests, 1))
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises((FrameError, AssertionError)):  # a changed length is no longer that of the body
        parse(bytes(frame))


def test_giant_lengths_are_refused_before_memory_is_taken() -> None:
    head = frames._HEAD.pack(frames.MAGIC, frames.VERSION, Kind.DATA, 1, U32, 0, U32, 0) + bytes(4)
    tracemalloc.start()
    try:
        with pytest.raises(FrameError, match=f"DATA frame of request 1: {U32} bytes, at most"):
            frames.parse_head(head)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("head", "complaint"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nAccept: ", "not a frame: it begins with b'GET / HT'"),
        (frames._HEAD.pack(b"fb", 2, Kind.READ, 1, 0, 0, 0, 0) + bytes(4), "version 2; this is version 1"),
        (frames._HEAD.pack(b"fb", 1, 200, 1, 0, 0, 0, 0) + bytes(4), "unknown kind 200"),
        (frames._HEAD.pack(b"fb", 1, Kind.DATA, 5, 9, 8, 16, 0) + bytes(4), "request 5: bytes 8 to 17 of 16"),
    ],
)
def test_what_is_wrong_with_a_head_is_said(head: bytes, complaint: str) -> None:
    with pytest.raises(FrameError, match=complaint):
        frames.parse_head(head[:HEAD_BYTES])


def test_what_fits_into_no_frame_is_refused_by_who_packs() -> None:
    block = BlockRequest("d", "p", "v", 0, 0, 1)
    with pytest.raises(ValueError, match="1025 blocks in a batch"):
        frames.pack_read([block] * 1025, 1)
    with pytest.raises(ValueError, match="70000 bytes, at most 65535"):
        frames.pack_read([block._replace(path="x" * 70_000)], 1)
    with pytest.raises(ValueError, match="fit into no frame"):
        frames.pack_object_question(Kind.TOUCH, 1, ObjectRequest("d", "p", -1, 1))


def test_each_block_has_its_identity() -> None:
    names = [
        ("d", "p", "v", 1),
        ("d", "p", "v", 2),
        ("d", "p", "w", 1),
        ("d", "q", "v", 1),
        ("e", "p", "v", 1),
    ]
    assert len({frames.identity_of(*each) for each in names}) == len(names)


def test_an_identity_is_the_same_on_every_host() -> None:
    assert frames.identity_of("d", "p", "v", 1) == mmh3.hash64(b"d\0p\0v\x001", 0, signed=False)[0]
    assert frames.identity_of("d", "p\udcff") == mmh3.hash64(b"d\0p\xff\0\x000", 0, signed=False)[0]


@pytest.mark.parametrize(
    ("cut", "complaint"),
    [
        (23, "24 bytes wanted at 0 of a body of 23"),
        (26, "6 bytes wanted at 24 of a body of 26"),
        (31, "24 bytes wanted at 30 of a body of 31"),
    ],
)
def test_a_batch_that_is_cut_is_told_where(cut: int, complaint: str) -> None:
    body = frames.pack_read([BlockRequest("dd", "pp", "vv", 0, 0, 1)] * 2, 1)[HEAD_BYTES:]
    with pytest.raises(FrameError, match=f"READ frame: {complaint}"):
        frames.parse_read(body[:cut])


def test_a_batch_of_too_much_is_refused() -> None:
    named = struct.Struct("<IBxHHHQI")
    with pytest.raises(FrameError, match=f"a block of {U32} bytes, at most"):
        frames.parse_read(named.pack(1, 0, 0, 0, 0, 0, U32))
    with pytest.raises(FrameError, match="unknown flags 0x82 of request 7"):
        frames.parse_read(named.pack(7, 0x82, 0, 0, 0, 0, 1))
    with pytest.raises(FrameError, match="more than 1024 blocks"):
        frames.parse_read(named.pack(1, 0, 0, 0, 0, 0, 1) * 1025)
