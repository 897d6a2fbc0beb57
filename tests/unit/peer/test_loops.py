"""Loops that are to go on for as long as their process: whatever goes wrong in one turn, the next one comes.

Each has something raised in it that no list of expected exceptions has, more than once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from forebay.clock import BootClock
from forebay.config import FORMAT_FOLDER
from forebay.peer import pulse, record
from forebay.peer.answer import Answerer
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import PeerDown
from forebay.peer.data.server import DataServer
from forebay.peer.failures import Failures
from forebay.peer.frames import pack_hello
from forebay.peer.group import Group
from forebay.peer.handshake import Terms
from forebay.peer.member import MemberState, View
from forebay.peer.membership import Answer, Membership, Rules
from forebay.peer.prober import Prober
from forebay.peer.pulse import Pulse
from forebay.peer.record import ServingRecord, serving_status
from forebay.peer.replicas.pushing import ReplicaLimits
from forebay.peer.replicas.replicator import Replicator
from forebay.peer.security.credentials import Credentials
from forebay.peer.service.blocks_client import StreamLink
from forebay.peer.settings import follower
from forebay.peer.settings.follower import Follower
from forebay.peer.settings.local import LocalSettings
from tests.cluster._site import wait_until
from tests.unit.peer._members import member

TURNS = 5


class Unexpected(Exception):  # noqa: N818  (what nobody has thought of)
    """What no list of expected exceptions has."""


class Failing:
    """Raises in its first turns, and then returns what it was given."""

    def __init__(self, result: Any = None) -> None:
        self.result = result
        self.turns = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.turns += 1
        if self.turns < TURNS:
            raise Unexpected
        return self.result


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Holds a test to one line in the log, with a traceback, however many turns failed."""
    yield
    records = caplog.get_records("call")
    (told,) = [each for each in records if each.exc_info and each.exc_info[0] is Unexpected]
    assert "further ones" in told.getMessage()


def test_a_kind_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures(logging.getLogger("forebay.test"), "it could not be done")
    for _ in range(3):
        for number in ("1", "x", "y"):
            try:
                int(number)
                raise Unexpected(number)
            except Exception as error:  # noqa: BLE001  (as loops do)
                failures.tell(error)
    assert len(caplog.records) == 2


@pytest.mark.usefixtures("logged")
def test_a_client_goes_on_to_ask_for_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "PULL_EVERY_S", 0.001)
    group = Group("g", ["127.0.0.1:1"])
    ask = Failing()
    monkeypatch.setattr(group, "one_admin", ask)
    asking = Follower(group, str(tmp_path), lambda: cast(LocalSettings, object()))
    asking.start()
    wait_until(lambda: ask.turns > TURNS)
    asking.stop()
    group.close()


@pytest.mark.usefixtures("logged")
def test_a_member_goes_on_to_see_to_copies() -> None:
    class Nothing:
        def wanted(self) -> dict[tuple[str, str], int]:
            return {}

        def admitted(self) -> int:
            return 0

        def held(self) -> Iterator[Any]:
            return iter(())

    reach, limits = Failing(), ReplicaLimits()
    replicator = Replicator(Nothing(), lambda *block: None, reach, 64, limits, look_every_s=0.001)
    replicator.start()
    wait_until(lambda: reach.turns > TURNS)
    replicator.stop()
    assert replicator.status()["errors"] == TURNS - 1


@pytest.mark.usefixtures("logged")
def test_a_member_goes_on_to_tell_its_host_of_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_STEP_S", 0.001)
    (tmp_path / FORMAT_FOLDER).mkdir()
    later = Failing({"epoch": 2})
    first = [{"epoch": 1}]
    served = ServingRecord(str(tmp_path), lambda: first.pop() if first else later())
    wait_until(lambda: serving_status(str(tmp_path)) == {"epoch": 2})
    served.close()


@pytest.mark.usefixtures("logged")
def test_who_waits_is_told_so_though_another_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "PULSE_S", 0.001)
    told = threading.Semaphore(0)

    class Sink:
        def __init__(self, send: Any) -> None:
            self.send_at_once = send

    beats = Pulse()
    beats.begin(Sink(Failing()), b"")
    beats.begin(Sink(lambda frame: told.release()), b"")
    for _ in range(2 * TURNS):
        assert told.acquire(timeout=30)
    beats.close()


class NoChannels:
    """Credentials that fail in a way of their own."""

    def __init__(self) -> None:
        self.opened = 0

    def open_aio_channel(self, address: str, options: Any = ()) -> Any:
        self.opened += 1
        raise Unexpected


def prober_of(membership: Membership, credentials: NoChannels, on_view: Any) -> Prober:
    return Prober(membership, Terms("g", 1 << 20), member(1).id, (), cast(Credentials, credentials), on_view)


@pytest.mark.usefixtures("logged")
def test_a_member_that_cannot_be_probed_is_down_and_probed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.peer.prober.TICK_S", 0.001)
    me, other = member(1), member(2)
    membership = Membership(me, "g", (), clock=BootClock(), rules=Rules(probe_interval_s=0.01))
    membership.answered(other.address, Answer("g", other, View.of(1, [me, other])))
    credentials = NoChannels()
    shown: list[View] = []

    async def probe() -> None:
        driving = prober_of(membership, credentials, shown.append)
        probing = asyncio.create_task(driving.run())
        while credentials.opened < TURNS:
            await asyncio.sleep(0)
        probing.cancel()
        await driving.leave()

    asyncio.run(probe())
    assert MemberState.DOWN in {each.state for view in shown for each in view.members}


@pytest.mark.usefixtures("logged")
def test_a_view_that_could_not_be_shown_is_shown_in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.peer.prober.TICK_S", 0.001)
    membership = Membership(member(1), "g", (), clock=BootClock())
    show = Failing()

    async def probe() -> None:
        driving = prober_of(membership, NoChannels(), show)
        probing = asyncio.create_task(driving.run())
        while show.turns < TURNS:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        probing.cancel()

    asyncio.run(probe())
    assert show.turns == TURNS


def test_a_stream_that_breaks_in_an_unknown_way_is_made_anew() -> None:
    class Call:
        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            raise Unexpected

        def cancel(self) -> None:
            pass

    class Channel:
        made = 0

        def stream_stream(self, *arguments: Any) -> Any:
            self.made += 1
            return lambda messages: Call()

        def close(self) -> None:
            pass

    channel = Channel()
    link = StreamLink("host:1", lambda: cast(Any, channel))
    for _ in range(3):
        with pytest.raises(PeerDown, match=r"Unexpected|ended"):
            link.stat("d", "path", deadline=Deadline(30.0))
        wait_until(lambda: link._stream is None or link._stream.has_ended)
    assert channel.made == 3
    link.close()


def test_a_data_port_that_is_out_of_descriptors_tells_so_once(caplog: pytest.LogCaptureFixture) -> None:
    class Listener:
        def __init__(self, listener: socket.socket) -> None:
            self._listener = listener
            self._accept = Failing()

        def accept(self) -> Any:
            try:
                self._accept()
            except Unexpected:
                raise OSError(errno.EMFILE, "too many open files") from None
            return self._listener.accept()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._listener, name)

    greeted = threading.Event()

    def welcome(hello: bytes, token: str | None, address: str) -> Any:
        greeted.set()
        raise PermissionError

    server = DataServer(cast(Answerer, None), welcome)
    port = server.start("127.0.0.1")
    server._listener = cast(socket.socket, Listener(cast(socket.socket, server._listener)))
    # The first is accepted by the call that is under way.
    for _ in range(2):
        greeted.clear()
        with socket.create_connection(("127.0.0.1", port)) as asker:
            asker.sendall(pack_hello(b"", None))
            assert greeted.wait(60)
    server.close()
    assert len([each for each in caplog.records if "let in" in each.getMessage()]) == 1
