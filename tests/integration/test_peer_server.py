"""A member as a whole, in this process: what strangers send to its ports, and who keeps it busy."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

import grpc
import pytest

from forebay.config import FORMAT_FOLDER, Tier
from forebay.peer.answer import Answerer
from forebay.peer.frames import HEAD_BYTES, Kind, pack_hello, pack_read, parse_head
from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.proto import forebay_pb2_grpc as pb_grpc
from forebay.peer.replicas.hand_over import HandOver
from forebay.peer.replicas.pushing import PeerStub, Pushed
from forebay.peer.replicas.replicator import Reach
from forebay.peer.replicas.served import ServedBlocks
from forebay.peer.ring import Ring
from forebay.peer.server import PeerServer, ServeOptions
from forebay.peer.service.message import METHOD, as_it_is, pack
from forebay.remote import BlockRequest

BLOCK_BYTES = 1 << 20
BLOCKS = 8


def member_of(folder: Path) -> PeerServer:
    """Return a member that does not run yet."""
    tiers = [Tier(str(folder / "tier"), "64MiB", "SSD")]
    options = {"block_bytes": BLOCK_BYTES}
    return PeerServer(str(folder / "cache"), tiers, options, ServeOptions(group="g", listen="127.0.0.1:0"))


@contextmanager
def running(folder: Path) -> Iterator[PeerServer]:
    """Have a member that can be asked."""
    server = member_of(folder)
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(lambda _: ready.set())))
    thread.start()
    try:
        assert ready.wait(60)
        yield server
    finally:
        server.stop()
        thread.join()


def test_a_greeting_that_is_no_message_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    with (
        running(tmp_path) as server,
        socket.create_connection(("127.0.0.1", server.data_port), timeout=60) as connection,
    ):
        connection.sendall(pack_hello(b"\xff\xff", None))
        head = connection.recv(HEAD_BYTES, socket.MSG_WAITALL)
        assert parse_head(head).kind is Kind.REFUSED


def test_askers_that_take_nothing_hold_up_no_other_call(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "o").write_bytes(os.urandom(BLOCKS * BLOCK_BYTES))
    with running(tmp_path) as server, ExitStack() as channels:

        def channel() -> grpc.Channel:
            return channels.enter_context(grpc.insecure_channel(server.address))

        server.cache.attach("d", f"file://{tmp_path}/source")
        with server.cache.open("d/o") as file:
            file.read()
        found = pb_grpc.PeerStub(channel()).Stat(pb.StatRequest(dataset="d", path=b"o"), timeout=60)
        version = found.object.version.decode()
        blocks = [
            BlockRequest("d", "o", version, number, number * BLOCK_BYTES, BLOCK_BYTES)
            for number in range(BLOCKS)
        ] * 8
        question = pack([pack_read(blocks, 1, only_cached=True)])
        # As many as asyncio has threads of its own; each has heard the begin of its answer.
        asked = [
            channel().stream_stream(METHOD, as_it_is, as_it_is)(iter([question]))
            for _ in range(min(32, (os.cpu_count() or 1) + 4))
        ]
        for answer in asked:
            next(answer)
        assert pb_grpc.AdminStub(channel()).Status(pb.StatusRequest(), timeout=15).status


def test_a_member_that_cannot_say_that_it_is_ready_ends_in_order(tmp_path: Path) -> None:
    def on_ready(server: PeerServer) -> None:
        raise OSError("no place to say it")

    server = member_of(tmp_path)
    with pytest.raises(OSError, match="no place to say it"):
        asyncio.run(server.run(on_ready))
    names = {thread.name for thread in threading.enumerate()}
    assert not {name for name in names if name.startswith(("forebay-settings", "forebay-replica"))}


def lasting_port() -> int:
    """Return a free port that nobody takes meanwhile: below those that who asks for any is given."""
    for port in random.sample(range(20_000, 30_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")


def test_a_member_that_starts_again_has_the_data_port_that_it_had(tmp_path: Path) -> None:
    kept = tmp_path / "cache" / FORMAT_FOLDER / "data-port"
    with running(tmp_path) as server:
        assert kept.read_text() == f"{server.data_port}\n"
    first = lasting_port()
    kept.write_text(f"{first}\n")
    with running(tmp_path) as server:
        assert server.data_port == first
        # An answered connection, whose end the port remembers for a while.
        with socket.create_connection(("127.0.0.1", first), timeout=60) as connection:
            connection.sendall(pack_hello(b"\xff\xff", None))
            assert connection.recv(HEAD_BYTES, socket.MSG_WAITALL)
    with running(tmp_path) as server:
        assert server.data_port == first
    with socket.create_server(("127.0.0.1", first)), running(tmp_path) as server:
        other = server.data_port
        assert other not in (0, first)
    for text in ("", "none", "0", "99999", "-1", f"{first}\n"):
        kept.write_text(text)
        with running(tmp_path) as server:
            assert server.data_port
    assert server.data_port == first


def test_a_member_that_cannot_hand_over_what_is_hot_ends_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(hand_over: HandOver, served: ServedBlocks) -> Pushed:
        raise OSError(5, "the entries cannot be read")

    drained: list[float] = []
    monkeypatch.setattr(HandOver, "run", fail)
    monkeypatch.setattr(Answerer, "drain", lambda answerer, timeout_s: drained.append(timeout_s))
    monkeypatch.setattr(
        PeerServer,
        "_reach",
        lambda server: Reach(Ring(server.view), server.member_id, {"x": cast(PeerStub, None)}),
    )
    server = member_of(tmp_path)
    asyncio.run(server.run(PeerServer.stop))
    assert drained
    assert "handed over" in caplog.text
