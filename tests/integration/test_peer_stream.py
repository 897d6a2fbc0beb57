"""The gRPC stream: the same frames and answers, shared by all threads of a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import grpc
import pytest

from forebay.errors import ConfigError, NotFound
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import Cancelled, PeerDown, PeerRefused
from forebay.peer.frames import FrameError, Kind, pack_frame
from forebay.peer.security.client_calls import AddsMetadata
from forebay.peer.service.blocks_client import StreamLink
from forebay.peer.service.message import METHOD, as_it_is, pack, unpack
from tests.integration._peer_answering import PATIENT, block, content, room
from tests.integration.test_peer_data import EXPECTED_OBJECT, server_process


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The gRPC port of a member in a process of its own."""
    with server_process() as (_, _, grpc_port):
        yield grpc_port


@pytest.fixture
def link(port: int) -> Iterator[StreamLink]:
    """A link to it."""
    one = StreamLink(f"127.0.0.1:{port}", lambda: grpc.insecure_channel(f"127.0.0.1:{port}"))
    yield one
    one.close()


def read(link: StreamLink, *numbers: int, path: str = "hit") -> list[int]:
    """Read blocks, hold them to what they should be, and return which came."""
    requests = [block(number, path=path) for number in numbers]
    buffers = room(requests)
    came: list[int] = []
    link.read(requests, buffers, came.append, deadline=PATIENT)
    assert all(buffers[index] == content(numbers[index]) for index in came)
    return [numbers[index] for index in came]


def test_blocks_and_objects_come_as_over_the_data_port(link: StreamLink) -> None:
    assert read(link, 3, 1, 2) == [3, 1, 2]
    assert sorted(read(link, 4, 5, 6, path="miss")) == [4, 5, 6]
    found = link.touch("d", "a/b", 10, 100, deadline=PATIENT)
    assert found is not None
    assert (found[0], bytes(found[1])) == (EXPECTED_OBJECT, content(0)[10:110])
    assert link.stat("d", "a/b", deadline=PATIENT) == EXPECTED_OBJECT
    assert sum(map(len, link.list("d", "dir", deadline=PATIENT) or ())) == 30_000
    assert link.view(deadline=PATIENT) == b"view"
    with pytest.raises(NotFound):
        link.stat("d", "absent", deadline=PATIENT)
    assert link.in_flight == 0


def test_threads_share_the_stream(link: StreamLink) -> None:
    came: list[list[int]] = []
    threads = [threading.Thread(target=lambda n=n: came.append(read(link, n, n + 10))) for n in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(came) == [[number, number + 10] for number in range(10)]


def test_a_cancelled_question_leaves_the_stream_to_the_others(link: StreamLink) -> None:
    with pytest.raises(Cancelled):
        link.read([block(1)], room([block(1)]), lambda index: None, deadline=PATIENT, cancelled=lambda: True)
    assert read(link, 2) == [2]


def test_a_killed_peer_is_down() -> None:
    with server_process() as (process, _, grpc_port):
        target = f"127.0.0.1:{grpc_port}"
        link = StreamLink(target, lambda: grpc.insecure_channel(target))
        assert read(link, 1) == [1]
        process.kill()
        process.wait()
        with pytest.raises(PeerDown, match="UNAVAILABLE"):
            link.read([block(1)], room([block(1)]), lambda index: None, deadline=Deadline(60.0))
        link.close()


def test_a_link_that_was_closed_or_forked_is_down(link: StreamLink, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(link, 1) == [1]
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(PeerDown, match="gRPC cannot be used in a forked process"):
            read(link, 1)
    link.close()
    with pytest.raises(PeerDown, match="was closed"):
        read(link, 1)


@pytest.mark.parametrize("has_channel", [True, False])
def test_a_token_that_vanished_is_a_refusal(has_channel: bool, port: int) -> None:
    def metadata() -> tuple[tuple[str, str], ...]:
        raise ConfigError("environment variable TOKEN: holds no token")

    def open_channel() -> grpc.Channel:
        if not has_channel:
            metadata()
        return grpc.intercept_channel(grpc.insecure_channel(f"127.0.0.1:{port}"), AddsMetadata(metadata))

    link = StreamLink(f"127.0.0.1:{port}", open_channel)
    with pytest.raises(PeerRefused, match="holds no token"):
        read(link, 1)
    link.close()


@pytest.mark.parametrize(
    "message", [b"\x0a", b"\x12\x01x", b"\x0a\x05x", b"garbage", pack([b"x" * 64]), pack([bytes(10)])]
)
def test_a_message_of_no_frames_is_refused(message: bytes, port: int) -> None:
    with pytest.raises(FrameError):
        list(unpack(message))
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_stream(METHOD, as_it_is, as_it_is)(iter([message]))
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_frames_come_out_of_a_message_as_they_went_in() -> None:
    frames = [pack_frame(Kind.ERROR, number, b"x" * number) for number in (0, 1, 200, 70_000)]
    assert [(head.id, len(body)) for head, body in unpack(pack(frames))] == [
        (number, number) for number in (0, 1, 200, 70_000)
    ]
    assert list(unpack(b"")) == []
