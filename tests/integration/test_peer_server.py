"""A member as a whole, in this process: what strangers send to its ports."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

from forebay.config import Tier
from forebay.peer.frames import HEAD_BYTES, Kind, pack_hello, parse_head
from forebay.peer.server import PeerServer, ServeOptions


def test_a_greeting_that_is_no_message_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    tiers = [Tier(str(tmp_path / "tier"), "32MiB", "SSD")]
    server = PeerServer(str(tmp_path / "cache"), tiers, {}, ServeOptions(group="g", listen="127.0.0.1:0"))
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(lambda _: ready.set())))
    thread.start()
    try:
        assert ready.wait(60)
        with socket.create_connection(("127.0.0.1", server.data_port), timeout=60) as connection:
            connection.sendall(pack_hello(b"\xff\xff", None))
            head = connection.recv(HEAD_BYTES, socket.MSG_WAITALL)
        assert parse_head(head).kind is Kind.REFUSED
    finally:
        server.stop()
        thread.join()
