"""Random and mutated bytes as the messages of every call: an error status, never a crash, bounded memory."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from forebay.config import MIB
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.security.keys import make_key_pair
from forebay.peer.security.permissions import Permissions
from forebay.peer.security.tokens import Verifier
from tests._peer_server import MESSAGE_BYTES_MAX, PeerServer, ask

METHODS = {
    f"/{service.full_name}/{method.name}": method.input_type
    for file in (pb.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
    for service in file.services_by_name.values()
    for method in service.methods
}
# It answers until the caller has enough of it.
ENDLESS = "/grpc.health.v1.Health/Watch"

TRIES = 60
# What gRPC says of a message too many or too few, beside what is said of a bad one.
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
TEXTS = ["", "imagenet", "imagenet/a", "../..", "%2e%2e", "a\0b", "\n\x1b[31m", "é" * 2000, "*", "@"]
NUMBERS = [0, 1, -1, 2**31, -(2**31), 2**63 - 1, -(2**63), 2**64 - 1]


def filled(kind: Any, chance: random.Random, depth: int = 0) -> Any:
    """Return a message of the kind with hostile values in its fields."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        for _ in range(chance.randrange(1, 4) if field.is_repeated else chance.randrange(2)):
            if field.message_type is not None:
                if depth < 3:
                    inner = filled(field.message_type, chance, depth + 1)
                    target = getattr(message, field.name)
                    (target.add() if field.is_repeated else target).CopyFrom(inner)
                continue
            fill(message, field, chance)
    return message


def fill(message: Any, field: Any, chance: random.Random) -> None:
    text = chance.choice(TEXTS)
    special: dict[Any, list[Any]] = {
        field.TYPE_STRING: [text],
        field.TYPE_BYTES: [text.encode(), chance.randbytes(chance.randrange(100))],
        field.TYPE_BOOL: [True],
        field.TYPE_DOUBLE: [float("nan"), float("inf"), -1.0],
        field.TYPE_ENUM: [0, 1],
    }
    value = chance.choice(special.get(field.type, NUMBERS))
    try:
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    except ValueError:
        # The number does not fit this kind of field; mutation gets those in.
        return


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Change some bytes, cut, repeat, or claim other lengths."""
    changed = bytearray(content or b"\x0a\x00")
    for _ in range(chance.randrange(1, 5)):
        place = chance.randrange(len(changed)) if changed else 0
        match chance.randrange(5):
            case 0 if changed:
                changed[place] = chance.randrange(256)
            case 1:
                del changed[place:]
            case 2:
                changed[place:place] = chance.randbytes(chance.randrange(1, 9))
            case 3:
                changed += changed[place:]
            case _:
                # A varint of a length that there is not, or one that does not end.
                changed[place:place] = chance.choice(
                    [b"\xff" * 9 + b"\x01", b"\xff" * 12, b"\x0a\xff\xff\xff\x7f"]
                )
    return bytes(changed)


def messages(kind: Any, seed: str) -> Iterator[list[bytes]]:
    """Yield what is sent in one call after the other.

    Never nothing: for a message that does not come gRPC waits until the call's deadline.
    """
    chance = random.Random(seed)
    yield from ([b""], [b"", b""], [b"\xff" * 100], [b"\x0b" * 10_000], [b"\x0a\x80\x80\x80\x80\x10"])
    for _ in range(TRIES):
        content = filled(kind, chance).SerializeToString()
        yield [chance.choice([content, mutated(content, chance), chance.randbytes(chance.randrange(300))])]
        yield [content, mutated(content, chance), content]


@pytest.fixture(scope="module")
def server() -> Iterator[PeerServer]:
    """One to whom everybody may say everything, so that all of it gets as far as it can."""
    server = PeerServer(Permissions())
    yield server
    server.close()


@pytest.fixture(scope="module")
def channel(server: PeerServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def status_of(channel: grpc.Channel, method: str, contents: list[bytes]) -> grpc.StatusCode:
    try:
        if method == ENDLESS:
            call = channel.stream_stream(method)(iter(contents), timeout=30)
            next(iter(call), None)
            call.cancel()
        else:
            ask(channel, method, *contents)
    except grpc.RpcError as error:
        code = error.code()
        assert isinstance(code, grpc.StatusCode)
        return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS)
def test_hostile_messages(channel: grpc.Channel, method: str, caplog: pytest.LogCaptureFixture) -> None:
    before = psutil.Process().memory_info().rss
    with caplog.at_level(logging.WARNING):
        for number, contents in enumerate(messages(METHODS[method], method)):
            code = status_of(channel, method, contents)
            assert code in EXPECTED, f"{method}, the {number}th: {code}: {contents!r}"
    # An error of the server's own would be logged with its traceback.
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert status_of(channel, "/grpc.health.v1.Health/Check", [b""]) is grpc.StatusCode.OK
    assert psutil.Process().memory_info().rss - before < 64 * MIB


@pytest.mark.parametrize("method", METHODS)
def test_giant_messages(channel: grpc.Channel, method: str) -> None:
    giant = bytes(MESSAGE_BYTES_MAX + 1)
    assert status_of(channel, method, [giant]) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_nothing_is_parsed_for_who_has_no_token(tmp_path: Path) -> None:
    """Bytes of somebody without a token do not even get to the parser: the answer is the same for all."""

    make_key_pair(str(tmp_path / "key"), str(tmp_path / "key.pub"))
    server = PeerServer(Permissions(Verifier([str(tmp_path / "key.pub")])))
    try:
        with grpc.insecure_channel(server.address) as channel:
            for method in METHODS:
                if method.startswith("/forebay"):
                    for content in (b"", b"\xff" * 50, bytes(1000)):
                        code = status_of(channel, method, [content])
                        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert server.answers.let_in == []
    finally:
        server.close()
