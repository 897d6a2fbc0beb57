"""The data port and its client: what is asked comes back whole, is said to be wrong, or does not come."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from forebay.errors import ConfigError, NotFound, Stale
from forebay.peer.answer import AnswerLimits
from forebay.peer.data.client import PeerLink
from forebay.peer.data.deadline import Deadline
from forebay.peer.data.errors import Cancelled, PeerDown, PeerRefused
from forebay.peer.data.server import DataLimits
from forebay.peer.frames import HEAD_BYTES, Kind, pack_frame
from forebay.remote import RemoteObject
from forebay.testing.faults import Fault
from forebay.testing.proxy import Proxy
from tests.integration import _peer_answering
from tests.integration._peer_answering import (
    BLOCK_BYTES,
    PATIENT,
    Member,
    block,
    content,
    greeting,
    link_to,
    room,
)

EXPECTED_OBJECT = RemoteObject("a/b", BLOCK_BYTES, -5, "v1", False, 7)


@pytest.fixture
def member() -> Iterator[Member]:
    """A member in threads of this process."""
    with Member() as one:
        yield one


@pytest.fixture
def link(member: Member) -> Iterator[PeerLink]:
    """A link to it."""
    one = link_to(member.port)
    yield one
    one.close()


@contextmanager
def server_process() -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """Run a member as a process of its own; gives it and its two ports."""
    command = [sys.executable, str(Path(_peer_answering.__file__))]
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    ) as process:
        assert process.stdout is not None
        data_port, grpc_port = map(int, process.stdout.readline().split())
        try:
            yield process, data_port, grpc_port
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def read(link: PeerLink, *numbers: int, path: str = "hit", deadline: Deadline = PATIENT) -> list[int]:
    """Read blocks, hold them to what they should be, and return which came, in that order."""
    requests = [block(number, path=path) for number in numbers]
    buffers = room(requests)
    came: list[int] = []

    def check(index: int) -> None:
        assert buffers[index] == content(numbers[index])
        came.append(numbers[index])

    link.read(requests, buffers, check, deadline=deadline)
    return came


def test_hits_come_in_order_and_misses_as_they_are_brought(member: Member, link: PeerLink) -> None:
    assert read(link, 3, 1, 2) == [3, 1, 2]
    assert read(link, 5, path="miss") == [5]
    assert sorted(read(link, *range(40), path="miss")) == list(range(40))
    assert member.server.connection_count == 1
    assert link.in_flight == 0
    assert link.latency.percentile_s(95) is not None


def test_a_batch_may_have_hits_and_misses_and_blocks_of_no_bytes(member: Member, link: PeerLink) -> None:
    member.serving.length = 5000
    requests = [block(1, 5000), block(2, 5000, "miss"), block(3, 5000), block(4, 0, "miss-empty")]
    buffers = room(requests)
    came: list[int] = []
    link.read(requests, buffers, came.append, deadline=PATIENT)
    assert came[:2] == [0, 2]
    assert set(came[2:]) == {1, 3}
    assert [bytes(buffer) for buffer in buffers[:3]] == [content(number, 5000) for number in (1, 2, 3)]


def test_more_blocks_than_one_frame_takes_are_several_questions(member: Member, link: PeerLink) -> None:
    member.serving.length = 10
    requests = [block(number, 10) for number in range(2500)]
    buffers = room(requests)
    came: list[int] = []
    link.read(requests, buffers, came.append, deadline=PATIENT)
    assert came == list(range(2500))
    assert all(buffer == content(number, 10) for number, buffer in enumerate(buffers))


def test_only_cached_brings_nothing(member: Member, link: PeerLink) -> None:
    requests = [block(1), block(2, path="miss")]
    came: list[int] = []
    link.read(requests, room(requests), came.append, only_cached=True, deadline=PATIENT)
    assert came == [0]
    assert member.serving.brought == []


def test_a_miss_gives_signs_of_life_while_it_is_brought(member: Member, link: PeerLink) -> None:
    member.serving.go_on.clear()
    signs = 0

    def alive() -> None:
        nonlocal signs
        signs += 1
        if signs == 4:  # FETCHING, the first piece, and PROGRESS twice
            member.serving.go_on.set()

    requests = [block(1, path="miss")]
    buffers = room(requests)
    came: list[int] = []
    link.read(requests, buffers, came.append, alive, deadline=Deadline(20.0))
    assert came == [0]
    assert buffers[0] == content(1)


@pytest.mark.parametrize(
    ("path", "error"), [("absent", NotFound), ("changed", Stale), ("secret", PermissionError)]
)
def test_what_a_peer_says_of_the_source_is_raised_when_the_rest_has_come(
    path: str, error: type[OSError], link: PeerLink
) -> None:
    requests = [block(1, path=path), block(2, path="miss"), block(3)]
    buffers = room(requests)
    came: list[int] = []
    with pytest.raises(error) as caught:
        link.read(requests, buffers, came.append, deadline=PATIENT)
    assert caught.value.filename == f"d/{path}"
    assert sorted(came) == [1, 2]
    for ask in (link.stat, link.list):
        with pytest.raises(error):
            ask("d", path, deadline=PATIENT)
    with pytest.raises(error):
        link.touch("d", path, 0, 1, deadline=PATIENT)


@pytest.mark.parametrize("path", ["broken", "short", "long"])
def test_a_block_that_a_peer_cannot_have_does_not_come(path: str, link: PeerLink) -> None:
    assert read(link, 1, path=path) == []
    assert read(link, 2) == [2]


def test_a_block_of_another_length_does_not_come(link: PeerLink) -> None:
    requests = [block(1, 500)]
    came: list[int] = []
    link.read(requests, room(requests), came.append, deadline=PATIENT)
    assert came == []
    with pytest.raises(ValueError, match="4 bytes of room for 500"):
        link.read(requests, [memoryview(bytearray(4))], came.append, deadline=PATIENT)


def test_who_may_not_is_refused(link: PeerLink) -> None:
    with pytest.raises(PeerRefused, match="permission denied"):
        read(link, 1, path="not-yours")
    with pytest.raises(PeerRefused):
        link.stat("d", "not-yours", deadline=PATIENT)


@pytest.mark.parametrize(
    ("said", "complaint"), [(greeting(b"other"), "another group: other"), (greeting(token="bad"), "not auth")]
)
def test_a_greeting_that_does_not_fit_is_refused(said: object, complaint: str, member: Member) -> None:
    with pytest.raises(PeerRefused, match=complaint):
        read(link_to(member.port, greeting=said), 1)


def test_a_token_that_vanished_is_a_refusal(member: Member) -> None:
    def token() -> str:
        raise ConfigError("environment variable TOKEN: holds no token")

    link = link_to(member.port, greeting=replace(greeting(), token=token))
    with pytest.raises(PeerRefused, match="holds no token"):
        read(link, 1)
    link.close()


def test_objects_are_touched_described_and_listed(link: PeerLink) -> None:
    found = link.touch("d", "a/b", 10, 2 << 20, deadline=PATIENT)
    assert found is not None
    assert found[0] == EXPECTED_OBJECT
    assert found[1] == content(0)[10 : 10 + (2 << 20)]
    assert link.stat("d", "a/b", deadline=PATIENT) == EXPECTED_OBJECT
    assert link.stat("other", "a/b", deadline=PATIENT) is None
    pages = link.list("d", "dir", deadline=PATIENT)
    assert pages is not None
    assert [each.path for page in pages for each in page] == [f"dir/{number:05}" for number in range(30_000)]
    assert [page for page in link.list("d", "empty", deadline=PATIENT) or () if page] == []
    assert link.list("other", "dir", deadline=PATIENT) is None
    assert link.view(deadline=PATIENT) == b"view"


def test_a_listing_that_is_left_in_its_middle_leaves_nothing_behind(link: PeerLink) -> None:
    pages = link.list("d", "dir", deadline=PATIENT)
    assert pages is not None
    next(pages)
    del pages
    assert link.in_flight == 0
    assert read(link, 1) == [1]


def test_a_cancelled_read_ends_and_the_next_one_has_its_own_answer(member: Member, link: PeerLink) -> None:
    member.serving.go_on.clear()
    requests = [block(1, path="miss")]
    signs: list[int] = []
    with pytest.raises(Cancelled):
        link.read(
            requests,
            room(requests),
            signs.append,
            lambda: signs.append(-1),
            deadline=PATIENT,
            cancelled=lambda: bool(signs),
        )
    assert read(link, 2) == [2]


def test_what_a_callback_raises_is_passed_on(link: PeerLink) -> None:
    def fail(index: int) -> None:
        raise OSError("mine")

    with pytest.raises(OSError, match="mine") as caught:
        link.read([block(1)], room([block(1)]), fail, deadline=PATIENT)
    assert not isinstance(caught.value, PeerDown)
    assert read(link, 2) == [2]


def test_threads_have_connections_of_their_own(member: Member, link: PeerLink) -> None:
    member.serving.go_on.clear()
    waiting = [threading.Thread(target=lambda n=n: read(link, n, path="miss")) for n in (1, 2)]
    for thread in waiting:
        thread.start()
    assert read(link, 3) == [3]
    member.serving.go_on.set()
    for thread in waiting:
        thread.join()
    assert sorted(member.serving.brought) == [1, 2]


def test_a_forked_child_asks_over_its_own_connections(member: Member, link: PeerLink) -> None:
    assert read(link, 1) == [1]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if all(read(link, number) == [number] for number in range(20)) else 2
        finally:
            os._exit(status)
    assert all(read(link, number) == [number] for number in range(20, 40))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert read(link, 2) == [2]


def test_nobody_there_is_down_at_once() -> None:
    # Nobody listens, and nobody else is given the port meanwhile.
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        with pytest.raises(PeerDown, match=rf"ECONNREFUSED.*127.0.0.1:{port}"):
            read(link_to(port), 1)


@pytest.mark.parametrize("moment", ["idle", "midst"])
def test_a_killed_peer_is_down_at_once(moment: str) -> None:
    with server_process() as (process, port, _):
        link = link_to(port)
        assert read(link, 1) == [1]

        def kill() -> None:
            process.kill()
            process.wait()

        if moment == "idle":
            kill()
        requests = [block(number) for number in range(200)]
        with pytest.raises(PeerDown):
            link.read(requests, room(requests), lambda index: kill(), deadline=Deadline(60.0))
        link.close()


def test_a_stopped_peer_is_down_by_the_deadline() -> None:
    with server_process() as (process, port, _):
        link = link_to(port)
        assert read(link, 1) == [1]
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(PeerDown, match=r"no sign of life for 0\.[5-9]|no sign of life for [1-9]"):
            read(link, 2, deadline=Deadline(0.5))
        # A new connection is accepted by the kernel, and nobody greets.
        with pytest.raises(PeerDown, match="no sign of life"):
            read(link, 2, deadline=Deadline(0.5))
        process.send_signal(signal.SIGCONT)
        assert read(link, 2) == [2]
        link.close()


def test_an_end_is_kept_though_the_peer_lives(member: Member, link: PeerLink) -> None:
    member.serving.go_on.clear()
    with pytest.raises(PeerDown, match="no whole answer by the deadline"):
        read(link, 1, path="miss", deadline=Deadline(30.0, time.monotonic() + 0.3))


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", after_bytes=2_000_000),
        Fault("truncate", after_bytes=2_000_000),
        Fault("truncate", after_bytes=HEAD_BYTES - 1),
        Fault("reset"),
        Fault("corrupt"),
        *(Fault("corrupt", after_bytes=at, times=1) for at in (3, 4, 9, 13, 17, 25, 29, 40, 1_500_000)),
        Fault("cut", after_bytes=1_000_000),
    ],
    ids=str,
)
def test_a_struck_answer_is_never_taken(fault: Fault, member: Member) -> None:
    with Proxy(("127.0.0.1", member.port)) as proxy:
        link = link_to(proxy.address[1])
        assert read(link, 1) == [1]
        proxy.set_faults([fault])
        # read() compares every block that is said to have come.
        with pytest.raises(PeerDown):
            read(link, 2, 3, deadline=Deadline(1.0))
        proxy.set_faults([])
        assert read(link, 2, 3) == [2, 3]
        link.close()


def test_a_slow_peer_is_waited_for(member: Member) -> None:
    member.serving.length = 50_000
    with Proxy(("127.0.0.1", member.port), delay_s=0.05, bandwidth_bytes_per_s=100_000) as proxy:
        link = link_to(proxy.address[1])
        requests = [block(1, 50_000)]
        buffers = room(requests)
        came: list[int] = []
        link.read(requests, buffers, came.append, deadline=PATIENT)
        assert came == [0]
        assert buffers[0] == content(1, 50_000)
        link.close()


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n", b"HTTP/1.1 400 \r\n" * 3])
def test_another_service_on_the_port_is_down(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(answer)
                connection.recv(100)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(PeerDown, match="not a frame: it begins with"):
            read(link_to(listener.getsockname()[1]), 1)
        thread.join()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
        bytes(64),
        b"\xff" * 64,
        pack_frame(Kind.READ, 1, b"x"),
    ],
)
def test_who_sends_anything_but_a_greeting_is_dropped(sent: bytes, member: Member, link: PeerLink) -> None:
    with socket.create_connection(("127.0.0.1", member.port)) as stranger:
        stranger.sendall(sent)
        assert _received(stranger) == b""
    assert read(link, 1) == [1]


def test_who_says_nothing_is_dropped() -> None:
    with (
        Member(limits=DataLimits(greeting_s=0.1)) as member,
        socket.create_connection(("127.0.0.1", member.port)) as silent,
    ):
        assert _received(silent) == b""


def test_a_flood_of_connections_is_held_to_the_limit() -> None:
    # None gives way for being idle or silent, however long it takes.
    with Member(limits=DataLimits(connections=4, spare_s=600.0, greeting_s=600.0)) as member:
        link = link_to(member.port)
        assert read(link, 1) == [1]
        flood = [socket.create_connection(("127.0.0.1", member.port)) for _ in range(50)]
        # 46 of them, with the link's, are too many.
        assert all(_received(each) == b"" for each in flood[3:])
        assert member.server.connection_count == 4
        assert read(link, 2) == [2]
        for each in flood:
            each.close()
        link.close()


def test_too_many_misses_are_not_taken_on() -> None:
    with Member(answer_limits=AnswerLimits(threads=2, misses=3)) as member:
        link = link_to(member.port)
        member.serving.go_on.clear()
        requests = [block(number, path="miss") for number in range(10)]
        came: list[int] = []
        signs: list[None] = []

        def alive() -> None:
            signs.append(None)
            if len(signs) > 10:
                member.serving.go_on.set()

        link.read(requests, room(requests), came.append, alive, deadline=PATIENT)
        assert sorted(came) == [0, 1, 2]
        link.close()


def test_a_member_that_leaves_finishes_what_is_under_way(member: Member, link: PeerLink) -> None:
    member.serving.go_on.clear()
    heard = threading.Event()
    requests = [block(1, path="miss")]
    came: list[int] = []
    thread = threading.Thread(
        target=link.read,
        args=(requests, room(requests), came.append, heard.set),
        kwargs={"deadline": PATIENT},
    )
    thread.start()
    assert heard.wait(30)
    assert not member.answerer.drain(0.0)
    assert read(link, 2) == []
    assert link.stat("d", "a/b", deadline=PATIENT) is None
    member.serving.go_on.set()
    assert member.answerer.drain(30.0)
    thread.join()
    assert came == [0]


def test_a_closed_link_ends_what_waits(member: Member, link: PeerLink) -> None:
    member.serving.go_on.clear()
    heard = threading.Event()
    ended: list[BaseException] = []

    def wait() -> None:
        requests = [block(1, path="miss")]
        try:
            link.read(requests, room(requests), lambda index: None, heard.set, deadline=PATIENT)
        except PeerDown as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert heard.wait(30)
    link.close()
    link.close()
    thread.join()
    assert len(ended) == 1


def _received(connection: socket.socket) -> bytes | None:
    """Return what comes first: nothing at an end, None when nothing comes."""
    connection.settimeout(30.0)
    try:
        return connection.recv(1)
    except ConnectionResetError:
        return b""
    except TimeoutError:
        return None
