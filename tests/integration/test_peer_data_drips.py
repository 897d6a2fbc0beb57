"""The data port: who sends byte by byte, or without end, gives signs of life, and has only so much time."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from forebay.peer.data.deadline import Deadline, never
from forebay.peer.data.errors import Cancelled, PeerDown
from forebay.peer.data.server import DataLimits
from forebay.peer.frames import Kind, identity_of, pack_frame, pack_head, pack_hello, pack_objects
from forebay.remote import RemoteObject
from tests._certificates import Authority
from tests.integration._peer_answering import Member, block, link_to

LENGTH = 50_000
STEP_S = 0.002


def drip(connection: socket.socket, data: bytes, until: threading.Event) -> int:
    """Send byte by byte until it is over, or the other side has gone; return how many bytes that were."""
    for number in range(len(data)):
        if until.wait(STEP_S):
            return number
        try:
            connection.sendall(data[number : number + 1])
        except OSError:
            return number
    return len(data)


@contextmanager
def answering(answer: Callable[[socket.socket, threading.Event], object]) -> Iterator[int]:
    """Greet whoever connects and let answer go on until it is over; gives the port."""
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(pack_head(Kind.DATA, 0, b"welcome", 7, 0, 7) + b"welcome")
            answer(connection, over)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        over.set()
        thread.join()


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_an_answer_byte_by_byte_ends_with_the_deadline_or_when_nobody_wants_it(is_cancelled: bool) -> None:
    begun, sent = threading.Event(), []
    wanted, body = block(1, LENGTH), bytes(LENGTH)
    identity = identity_of(wanted.dataset, wanted.path, wanted.version, wanted.number)

    def answer(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(pack_head(Kind.DATA, 1, body, LENGTH, 0, LENGTH, identity))
        begun.set()
        sent.append(drip(connection, body, over))

    with answering(answer) as port:
        link = link_to(port)
        end_s = None if is_cancelled else time.monotonic() + 0.3
        with pytest.raises(Cancelled if is_cancelled else PeerDown):
            link.read(
                [wanted],
                [memoryview(bytearray(LENGTH))],
                lambda index: None,
                deadline=Deadline(60.0, end_s),
                cancelled=begun.is_set if is_cancelled else never,
            )
        link.close()
    assert sent[0] < LENGTH


@pytest.mark.parametrize(
    ("asked", "kind"), [(Kind.READ, Kind.PROGRESS), (Kind.LIST, Kind.PROGRESS), (Kind.LIST, Kind.PAGE)]
)
def test_an_answer_without_end_ends_with_the_deadline(asked: Kind, kind: Kind) -> None:
    wanted = block(1)
    (page,) = pack_objects([RemoteObject("a/b", 1, 2, "v", False, 3)])
    body = page if kind is Kind.PAGE else b""
    about = identity_of(*wanted[:4]) if asked is Kind.READ else identity_of("d", "a")
    frames = pack_frame(kind, 1, body, about) * 1000

    def answer(connection: socket.socket, over: threading.Event) -> None:
        with suppress(OSError):
            while not over.is_set():
                connection.sendall(frames)

    with answering(answer) as port:
        link = link_to(port)
        deadline = Deadline(60.0, time.monotonic() + 0.3)

        def ask() -> None:
            if asked is Kind.READ:
                link.read([wanted], [memoryview(bytearray(wanted.length))], print, deadline=deadline)
            else:
                deque(link.list("d", "a", deadline=deadline) or (), maxlen=0)

        with pytest.raises(PeerDown, match="no whole answer by the deadline"):
            ask()
        link.close()


def client_hello() -> bytes:
    """Return what TLS begins with."""
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    # So long that it takes half a minute byte by byte, which whoever is to drop it has.
    context.set_alpn_protocols([f"{number:0255}" for number in range(60)])
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


@pytest.mark.parametrize("has_tls", [False, True])
def test_a_greeting_byte_by_byte_has_no_more_time_than_others(tmp_path: Path, has_tls: bool) -> None:
    context = None
    if has_tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*Authority(tmp_path).issue("member"))
    greeting = client_hello() if has_tls else pack_hello(bytes(LENGTH), None)
    with (
        Member(context, limits=DataLimits(greeting_s=0.05)) as member,
        socket.create_connection(("127.0.0.1", member.port)) as connection,
    ):
        assert drip(connection, greeting, threading.Event()) < len(greeting)
