"""Clients of the WebHDFS gateway that go away, stand still, send rubbish, or come without a good token."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

import psutil
import pytest

from forebay.api.webhdfs.guard import Act
from forebay.api.webhdfs.limits import GatewayLimits
from forebay.cache import Cache
from forebay.cli.gateway import TokenGuard, announced_port
from forebay.config import KIB, MIB, Tier
from forebay.errors import ConfigError
from forebay.peer.security.claims import ALL, Claims, Verb
from forebay.peer.security.keys import make_key_pair, read_private_key
from forebay.peer.security.options import SecurityOptions
from forebay.peer.security.tokens import sign
from tests._certificates import Authority
from tests._gateway import TIMEOUT_S, Served, serving
from tests.faults._child import wait_until

LARGE = os.urandom(24 * MIB)
SMALL = b"bytes of a"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a small and a large file."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a").write_bytes(SMALL)
    (folder / "large").write_bytes(LARGE)
    return folder


@pytest.fixture
def cache(tmp_path: Path, memory_path: Path, source: Path) -> Iterator[Cache]:
    """A cache with the folder attached to be written."""
    with Cache(tmp_path / "cache", [Tier(str(memory_path), 64 * MIB, "MEM")]) as cache:
        cache.attach("d", source.as_uri(), writable=True, max_age=0)
        yield cache


@pytest.fixture
def gateway(cache: Cache) -> Iterator[Served]:
    """A gateway that waits for longer than a busy machine may keep a client of it without a processor."""
    with serving(cache) as served:
        yield served


@pytest.fixture
def impatient(cache: Cache) -> Iterator[Served]:
    """A gateway that waits for nobody for long."""
    with serving(cache, limits=GatewayLimits(head_s=2, stall_s=0.5, idle_s=2)) as served:
        yield served


def connected(gateway: Served) -> socket.socket:
    return socket.create_connection(gateway.address, TIMEOUT_S)


def rest_of(connection: socket.socket) -> bytes:
    """Return what comes until the connection is closed, or reset."""
    found = b""
    try:
        while data := connection.recv(1 << 20):
            found += data
    except ConnectionResetError:
        pass
    return found


def staged(cache: Cache) -> int:
    return int(cache.status()["staging"]["bytes"])


def test_clients_that_go_away_in_the_middle_of_a_body(gateway: Served) -> None:
    for _ in range(20):
        with connected(gateway) as connection:
            connection.sendall(b"GET /webhdfs/v1/d/large?op=OPEN HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(64 * KIB).startswith(b"HTTP/1.1 200 OK")
    assert gateway.get("/d/large?op=OPEN").body == LARGE


@pytest.mark.parametrize("op", ["CREATE", "APPEND"])
def test_a_write_that_is_broken_off_leaves_nothing(
    gateway: Served, cache: Cache, source: Path, op: str
) -> None:
    method, name = ("PUT", "new") if op == "CREATE" else ("POST", "a")
    before = sorted(os.listdir(source))
    with connected(gateway) as connection:
        head = f"{method} /webhdfs/v1/d/{name}?op={op}&data=true HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(head.encode() + b"Content-Length: 9000000\r\n\r\n" + bytes(4 * MIB))
        wait_until(lambda: staged(cache) > 0, "some of the body is staged")
    wait_until(lambda: staged(cache) == 0, "what was staged is gone")
    assert sorted(os.listdir(source)) == before
    assert (source / "a").read_bytes() == SMALL


def test_a_body_that_stands_still_is_given_up(impatient: Served, cache: Cache, source: Path) -> None:
    with connected(impatient) as connection:
        head = b"PUT /webhdfs/v1/d/new?op=CREATE&data=true HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(head + b"Content-Length: 9\r\n\r\nabc")
        assert b" 403 " in rest_of(connection).partition(b"\r\n")[0]
    assert not (source / "new").exists()
    assert staged(cache) == 0


def test_a_reader_that_stands_still_is_given_up(impatient: Served, caplog: pytest.LogCaptureFixture) -> None:
    with connected(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        connection.sendall(b"GET /webhdfs/v1/d/large?op=OPEN HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 OK")
        # It reads on only when the gateway has given up: the body breaks off.
        wait_until(lambda: "the client took nothing" in caplog.text, "the gateway gives up")
        assert len(rest_of(connection)) < len(LARGE)
    assert impatient.get("/d/a?op=OPEN").body == SMALL


def test_heads_that_never_end_are_given_up(impatient: Served) -> None:
    with connected(impatient) as silent, connected(impatient) as slow, connected(impatient) as again:
        again.sendall(b"GET /webhdfs/v1/?op=GETHOMEDIRECTORY HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(again, b"}")
        again.sendall(b"GET /webhdfs/v1/?op=")
        slow.sendall(b"GET /webhdfs/v1/d/a?op=OPEN HTTP/1.1\r\n")
        begun_s = time.monotonic()
        # A line now and then does not help.
        while time.monotonic() - begun_s < TIMEOUT_S:
            try:
                slow.sendall(b"X-Slow: 1\r\n")
            except OSError:
                break
            time.sleep(0.05)
        assert rest_of(silent) + rest_of(slow) + rest_of(again) == b""


def test_heads_that_are_too_long_are_refused(gateway: Served) -> None:
    with connected(gateway) as connection:
        connection.sendall(b"GET /webhdfs/v1/d/a?op=OPEN HTTP/1.1\r\n" + b"X-Long: " + b"x" * (256 * KIB))
        assert rest_of(connection).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00\xff\x16\x03\x01 no http",
        b"GET /webhdfs/v1/d/\xff\xfe?op=OPEN HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /webhdfs/v1/d/a?op=OPEN HTTP/9.9\r\n\r\n",
        b"PUT /webhdfs/v1/d/x?op=CREATE&data=true HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"PUT /webhdfs/v1/d/x?op=CREATE&data=true HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"TRACE /webhdfs/v1/d/a?op=OPEN HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_rubbish_is_refused(gateway: Served, source: Path, rubbish: bytes) -> None:
    with connected(gateway) as connection:
        connection.sendall(rubbish)
        connection.shutdown(socket.SHUT_WR)
        said = rest_of(connection)
    assert not said or said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 403 "))
    assert sorted(os.listdir(source)) == ["a", "large"]
    assert gateway.get("/d/a?op=OPEN").body == SMALL


def test_two_hundred_readers_within_bounded_memory(cache: Cache) -> None:
    with serving(cache) as gateway:
        read_by_two_hundred(gateway)


def read_by_two_hundred(gateway: Served) -> None:
    assert gateway.get("/d/large?op=OPEN").body == LARGE
    process = psutil.Process()
    before = process.memory_info().rss
    grown: list[int] = []

    def read(number: int) -> int:
        with connected(gateway) as connection:
            connection.sendall(b"GET /webhdfs/v1/d/large?op=OPEN HTTP/1.0\r\n\r\n")
            count = 0
            # Bytes are compared elsewhere; two hundred copies of them would be the test's own memory.
            while data := connection.recv(256 * KIB):
                count += len(data)
            grown.append(process.memory_info().rss - before)
            return count

    with ThreadPoolExecutor(200) as pool:
        counts = list(pool.map(read, range(200)))
    assert min(counts) >= len(LARGE)
    # The threads of this test, and what lies in 200 buffers: far less than 200 files.
    assert max(grown) < 600 * MIB


def test_more_connections_than_allowed_are_closed(cache: Cache) -> None:
    with serving(cache, limits=GatewayLimits(connections=3)) as gateway:
        held = [connected(gateway) for _ in range(3)]
        try:
            for connection in held:
                connection.sendall(b"GET /webhdfs/v1/d/a?op=OPEN HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert connection.recv(64 * KIB).startswith(b"HTTP/1.1 200 OK")
            with connected(gateway) as one_more:
                assert rest_of(one_more) == b""
        finally:
            for connection in held:
                connection.close()
        wait_until(lambda: answers(gateway), "there is room for connections again")


def answers(gateway: Served) -> bool:
    try:
        return gateway.get("/d/a?op=OPEN").body == SMALL
    except (OSError, HTTPException):
        return False


def test_a_storage_that_fails_in_the_middle_breaks_the_body_off(
    gateway: Served, source: Path, cache: Cache
) -> None:
    with connected(gateway) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        connection.sendall(b"GET /webhdfs/v1/d/large?op=OPEN HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1_000).startswith(b"HTTP/1.1 200 OK")
        cache.put("d/large", b"x" * len(LARGE))
        assert len(rest_of(connection)) < len(LARGE)
    assert gateway.get("/d/large?op=OPEN").body == b"x" * len(LARGE)


def until(connection: socket.socket, end: bytes) -> bytes:
    """Return what comes up to an end."""
    found = b""
    while not found.endswith(end):
        found += connection.recv(64 * KIB) or pytest.fail(f"closed after {found!r}")
    return found


def test_readers_that_stand_still_keep_no_connection(cache: Cache) -> None:
    limits = GatewayLimits(stall_s=0.2, idle_s=1, connections=3)
    with serving(cache, limits=limits) as gateway:
        held = []
        for _ in range(3):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
            connection.connect(gateway.address)
            connection.sendall(b"GET /webhdfs/v1/d/large?op=OPEN HTTP/1.1\r\nHost: localhost\r\n\r\n")
            held.append(connection)
        wait_until(lambda: answers(gateway), "there is room for connections again")
        for connection in held:
            connection.close()


@pytest.mark.parametrize(
    ("request_head", "rest"),
    [
        (b"PUT /webhdfs/v1/d/a?op=NONE HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000", b"x"),
        (b"GET /webhdfs/v1/?op=GETHOMEDIRECTORY HTTP/1.1\r\nHost: localhost", b"\r\n"),
    ],
    ids=["the rest of a refused body", "line ends between requests"],
)
def test_what_comes_drop_by_drop_behind_an_answer_is_given_up(
    impatient: Served, request_head: bytes, rest: bytes
) -> None:
    with connected(impatient) as connection:
        connection.sendall(request_head + b"\r\n\r\n")
        until(connection, b"}")
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < TIMEOUT_S:
            try:
                connection.sendall(rest)
            except OSError:
                break
            time.sleep(0.05)
        assert time.monotonic() - begun_s < TIMEOUT_S


@pytest.mark.parametrize("trailer", [b"A: " + b"b" * 1_000 + b"\r\n", b"b" * 1_000])
def test_trailers_that_never_end_are_refused(gateway: Served, source: Path, trailer: bytes) -> None:
    with connected(gateway) as connection:
        head = b"PUT /webhdfs/v1/d/new?op=CREATE&data=true HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nA: b")
        sent = 0
        with suppress(OSError):
            while sent < 64 * MIB:
                connection.sendall(trailer)
                sent += len(trailer)
        assert sent < 64 * MIB
    assert not (source / "new").exists()


def test_a_body_in_many_small_chunks_is_taken(gateway: Served, source: Path) -> None:
    with connected(gateway) as connection:
        head = b"PUT /webhdfs/v1/d/new?op=CREATE&data=true HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n")
        assert until(connection, b"\r\n\r\n").startswith(b"HTTP/1.1 201 ")
    assert (source / "new").read_bytes() == b"x" * 40_000


def test_a_head_that_is_too_long_is_refused_though_it_comes_at_once(gateway: Served) -> None:
    for length, status in ((50 * KIB, b"200"), (70 * KIB, b"400")):
        with connected(gateway) as connection:
            head = b"GET /webhdfs/v1/d/a?op=OPEN HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            connection.sendall(head + b"X-Long: " + b"x" * length + b"\r\n\r\n")
            assert rest_of(connection).startswith(b"HTTP/1.1 " + status)


def test_rubbish_behind_a_request_puts_nothing_into_its_answer(gateway: Served) -> None:
    with connected(gateway) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)
        connection.sendall(b"GET /webhdfs/v1/d/large?op=OPEN HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = connection.recv(1_000)
        connection.sendall(b"\x00 no http\r\n\r\n")
        said += rest_of(connection)
    assert said.count(b"HTTP/1.1 ") == 1
    assert LARGE.startswith(said.partition(b"\r\n\r\n")[2])


def test_a_client_that_asks_for_another_protocol_is_taken_by_its_word(gateway: Served, source: Path) -> None:
    upgrade = b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    for op in (b"PUT /webhdfs/v1/d/new?op=CREATE", b"POST /webhdfs/v1/d/a?op=APPEND"):
        with connected(gateway) as connection:
            connection.sendall(op + b"&data=true HTTP/1.1\r\n" + upgrade + b"Content-Length: 5\r\n\r\n")
            assert rest_of(connection).startswith(b"HTTP/1.1 400 ")
    with connected(gateway) as connection:
        connection.sendall(b"GET /webhdfs/v1/d/a?op=OPEN HTTP/1.1\r\n" + upgrade + b"\r\n")
        assert rest_of(connection).endswith(SMALL)
    assert not (source / "new").exists()
    assert (source / "a").read_bytes() == SMALL


def test_clients_that_go_away_from_a_pipeline_leave_no_descriptor(gateway: Served) -> None:
    request = b"GET /webhdfs/v1/d/large?op=OPEN HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert gateway.get("/d/large?op=OPEN").body == LARGE
    begun = psutil.Process().num_fds()
    for _ in range(5):
        with connected(gateway) as connection:
            connection.sendall(request * 20)
            connection.recv(64 * KIB)
    wait_until(lambda: psutil.Process().num_fds() <= begun, "the connections are closed")
    assert gateway.get("/d/a?op=OPEN").body == SMALL


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({"Host": "evil.example:9870"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:9870"}, 200),
        ({"Host": "LOCALHOST."}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:9870"}, 200),
        ({"Host": socket.gethostname()}, 200),
    ],
)
def test_pages_of_a_browser_are_held_off(
    gateway: Served, source: Path, header: dict[str, str], status: int
) -> None:
    assert gateway.ask("GET", "/d/a?op=OPEN", headers=header).status == status
    # The one change that a browser sends to another site without asking there first.
    assert gateway.ask("POST", "/d/a?op=APPEND&data=true", b"more", header).status == status
    assert (source / "a").read_bytes() == SMALL + (b"more" if status == 200 else b"")


def test_the_name_that_a_group_knows_is_no_page_s(cache: Cache) -> None:
    with serving(cache, own="node1.example:9870") as gateway:
        for host, status in (("Node1.example:9870", 200), ("node2.example:9870", 403)):
            assert gateway.ask("GET", "/d/a?op=OPEN&data=true", headers={"Host": host}).status == status


class Only:
    """A guard that lets one token read below one path."""

    def __init__(self) -> None:
        self.held: list[tuple[Act, str | None, str, list[str]]] = []

    def hold(self, act: Act, token: str | None, address: str, paths: Iterable[str]) -> None:
        self.held.append((act, token, address, list(paths)))
        if act is Act.WRITE:
            raise PermissionError("not that")


def test_every_request_is_held_to_the_guard(cache: Cache) -> None:
    guard = Only()
    with serving(cache, guard=guard) as gateway:
        assert gateway.ask("GET", "/d/a?op=OPEN", headers={"Authorization": "Bearer t0"}).body == SMALL
        assert gateway.ask("PUT", "/d/a?op=RENAME&destination=/d/b").exception == "AccessControlException"
        assert gateway.put("/d/new", b"x").exception == "AccessControlException"
    assert guard.held == [
        (Act.READ, "t0", "127.0.0.1", ["/d/a"]),
        (Act.WRITE, None, "127.0.0.1", ["/d/a", "/d/b"]),
        (Act.WRITE, None, "127.0.0.1", ["/d/new"]),
    ]


DAY_S = 24 * 3600


def test_tokens_over_tls(cache: Cache, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    make_key_pair(str(tmp_path / "key"), str(tmp_path / "key.pub"))
    security = SecurityOptions(
        tls_cert_file=certificate, tls_key_file=key, token_keys_file=str(tmp_path / "key.pub")
    )

    def token(datasets: tuple[str, ...], verbs: set[Verb], ends_s: int = DAY_S) -> dict[str, str]:
        now = int(time.time())
        claims = Claims("id", datasets, frozenset(verbs), (), now - DAY_S, now + ends_s)
        return {"Authorization": f"Bearer {sign(claims, read_private_key(str(tmp_path / 'key')))}"}

    tls = security.server_tls()
    assert tls is not None
    context = ssl.create_default_context(cafile=str(authority.file))
    guard = TokenGuard(security.permissions())
    with serving(cache, guard=guard, tls=tls.ssl_context, context=context) as gateway:
        open_it, make_it, list_all = "/d/a?op=OPEN", "/d/x?op=MKDIRS", "/?op=LISTSTATUS"
        for headers in ({}, {"Authorization": "Bearer x.y.z"}, token((ALL,), {Verb.READ}, ends_s=-60)):
            for method, path in (("GET", open_it), ("PUT", make_it), ("GET", list_all)):
                refused = gateway.ask(method, path, headers=headers)
                assert (refused.status, refused.exception) == (401, "SecurityException")
        reader, writer = token(("d",), {Verb.READ}), token(("d/x",), {Verb.WRITE})
        assert gateway.ask("GET", open_it, headers=reader).body == SMALL
        assert gateway.ask("PUT", make_it, headers=writer).json["boolean"]
        assert gateway.ask("GET", "/?op=GETHOMEDIRECTORY", headers=reader).status == 200
        assert gateway.ask("GET", list_all, headers=token((ALL,), {Verb.LIST})).status == 200
        for method, path, headers in (
            ("PUT", make_it, reader),
            ("GET", open_it, writer),
            ("PUT", "/d/y?op=MKDIRS", writer),
            ("PUT", "/d/x?op=RENAME&destination=/d/y", writer),
            ("GET", list_all, reader),
        ):
            refused = gateway.ask(method, path, headers=headers)
            assert (refused.status, refused.exception) == (403, "AccessControlException")
    with pytest.raises(ConfigError, match="TLS"):
        SecurityOptions().resolve_listen("0.0.0.0:9870")


def test_others_are_not_told_of_a_gateway_that_they_cannot_reach() -> None:
    security = SecurityOptions(insecure=True)
    assert announced_port(None, "0.0.0.0:7070", security) == 0
    for host, member, is_told in (
        ("127.0.0.1", "127.0.0.1:7070", True),
        ("127.0.0.1", "0.0.0.0:7070", False),
        ("0.0.0.0", "0.0.0.0:7070", True),
    ):
        with socket.create_server((host, 0)) as bound:
            assert announced_port(bound, member, security) == (bound.getsockname()[1] if is_told else 0)
