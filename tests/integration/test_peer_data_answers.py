"""The data port: what comes between the parts of an answer, in its place, or ends it before it is sent."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from forebay.peer.answer import Answerer, AnswerLimits
from forebay.peer.data.deadline import Deadline, Watch, never
from forebay.peer.data.errors import PeerDown
from forebay.peer.data.server import DataLimits
from forebay.peer.data.wire import accept
from forebay.peer.frames import (
    HEAD_BYTES,
    Data,
    Kind,
    identity_of,
    pack_frame,
    pack_head,
    pack_objects,
    pack_read,
    parse_head,
)
from forebay.peer.sending import STALLED_S
from forebay.remote import RemoteObject
from tests._certificates import Authority
from tests.cluster._site import wait_until
from tests.integration._peer_answering import (
    BLOCK_BYTES,
    PATIENT,
    FakeServing,
    Member,
    Permissions,
    block,
    link_to,
)
from tests.unit.peer._fake_links import FakeTime

EXPECTED_OBJECT = RemoteObject("a/b", BLOCK_BYTES, -5, "v1", False, 7)


def test_signs_of_life_may_come_between_an_object_and_its_bytes() -> None:
    identity = identity_of("d", "a")
    data = bytes(100)
    (body,) = pack_objects([EXPECTED_OBJECT])
    alive = pack_frame(Kind.PROGRESS, 1, identity=identity)
    pieces = [
        pack_head(Kind.DATA, 1, data[:60], 60, 0, 100, identity) + data[:60],
        pack_head(Kind.DATA, 1, data[60:], 40, 60, 100, identity) + data[60:],
    ]
    answer = pack_frame(Kind.OBJECT, 1, body, identity) + alive + pieces[0] + alive + pieces[1]
    reply = pack_head(Kind.DATA, 0, b"welcome", 7, 0, 7) + b"welcome"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(reply + answer)
                connection.recv(1)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        link = link_to(listener.getsockname()[1])
        found = link.touch("d", "a", 0, 100, deadline=PATIENT)
        link.close()
        thread.join()
    assert found is not None
    assert (found[0], bytes(found[1])) == (EXPECTED_OBJECT, data)


def test_what_nobody_expected_is_answered_too() -> None:
    # An answer that never comes would have the member taken for dead.
    with Member() as member:
        link = link_to(member.port)
        assert link.stat("d", "unforeseen", deadline=PATIENT) is None
        link.close()


class Asker:
    """A sink that takes data only once it is told to."""

    def __init__(self) -> None:
        self.kinds: list[Kind] = []
        self.has_data = threading.Semaphore(0)
        self.go_on = threading.Event()

    def send(self, parts: Sequence[Data]) -> None:
        kind = parse_head(memoryview(parts[0])[:HEAD_BYTES]).kind
        if kind is Kind.DATA:
            self.has_data.release()
            assert self.go_on.wait(60)
        self.kinds.append(kind)

    def send_at_once(self, frame: bytes) -> None:
        pass


def test_while_askers_that_take_nothing_hold_the_threads_others_are_told_so() -> None:
    clock = FakeTime()
    answerer = Answerer(FakeServing(), Permissions(), lambda: b"", AnswerLimits(threads=2), clock)
    body = pack_read([block(1, path="miss")], 1)
    head, question = parse_head(memoryview(body)[:HEAD_BYTES]), memoryview(body)[HEAD_BYTES:]
    stalled, other, later = [Asker(), Asker()], Asker(), Asker()
    for asker in stalled:
        answerer.answer(head, question, None, asker)
    assert all(asker.has_data.acquire(timeout=60) for asker in stalled)
    clock.advance(STALLED_S)
    answerer.answer(head, question, None, other)
    assert other.kinds == [Kind.BUSY]
    for asker in (*stalled, later):
        asker.go_on.set()
    # What comes next says that the first piece is out.
    assert all(asker.has_data.acquire(timeout=60) for asker in stalled)
    answerer.answer(head, question, None, later)
    assert answerer.drain(60)
    assert later.kinds[0] is Kind.FETCHING
    assert later.kinds[-1] is Kind.DATA
    answerer.close()


def test_with_tls_a_peer_that_has_gone_ends_what_is_sent(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("member"))
    theirs = ssl.create_default_context(cafile=str(authority.file))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asker = socket.create_connection(listener.getsockname())
        answering, _ = listener.accept()
    thread = threading.Thread(target=lambda: theirs.wrap_socket(asker, server_hostname="localhost").close())
    thread.start()
    end = Watch(Deadline(30.0, time.monotonic() + 30.0), never)
    wire = accept(answering, end, context)
    thread.join()
    with pytest.raises(ConnectionError):
        wire.send([bytes(1 << 20)] * 64, end)
    wire.close()


def test_a_connection_that_is_idle_gives_way_where_there_are_too_many() -> None:
    with Member(limits=DataLimits(connections=3, spare_s=0.0)) as member:
        links = [link_to(member.port) for _ in range(6)]
        for _ in range(2):
            for link in links:
                buffers = [memoryview(bytearray(BLOCK_BYTES))]
                came: list[int] = []
                link.read([block(1)], buffers, came.append, deadline=PATIENT)
                assert came == [0]
                assert member.server.connection_count <= 3
        for link in links:
            link.close()


def test_who_waits_for_the_storage_does_not_give_way() -> None:
    with Member(limits=DataLimits(connections=1, spare_s=60.0)) as member:
        member.serving.go_on.clear()
        first, second = link_to(member.port), link_to(member.port)
        found: list[RemoteObject | None] = []
        asking = threading.Thread(target=lambda: found.append(first.stat("d", "a", deadline=PATIENT)))
        asking.start()
        wait_until(lambda: member.server.connection_count == 1)
        with pytest.raises(PeerDown):
            second.stat("d", "a", deadline=PATIENT)
        member.serving.go_on.set()
        asking.join()
        assert found[0] is not None
        for link in (first, second):
            link.close()
