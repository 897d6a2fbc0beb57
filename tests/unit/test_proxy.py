"""The fault proxy itself, before anything is tested with it: what it delays, shares, counts and breaks."""

from __future__ import annotations

import http.client
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from forebay.config import MIB
from forebay.testing._http import BodyFinder, RequestStream
from forebay.testing.faults import Fault
from forebay.testing.proxy import Proxy, main
from forebay.testing.proxy_process import ProxyProcess


class Handler(BaseHTTPRequestHandler):
    """Answers GET /n with n bytes and PUT with what it was sent."""

    protocol_version = "HTTP/1.1"
    # The head and the body in one segment, or Nagle's algorithm adds 40 ms of its own.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.answer(b"x" * int(self.path.strip("/")))

    def do_PUT(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep standard error for failures."""


class Server(ThreadingHTTPServer):
    """Lets its threads end with the test, and takes no offence at clients that reset."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        assert isinstance(sys.exc_info()[1], ConnectionError)


@pytest.fixture
def target() -> Iterator[tuple[str, int]]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[0:2]  # type: ignore[misc]  # a TCP server's address is a pair
        server.shutdown()
        thread.join()


def get(connection: http.client.HTTPConnection, size_bytes: int) -> bytes:
    connection.request("GET", f"/{size_bytes}")
    return connection.getresponse().read()


def connect(proxy: Proxy, timeout_s: float = 30.0) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(*proxy.address, timeout=timeout_s)


def test_bytes_pass_unchanged_both_ways(target: tuple[str, int]) -> None:
    body = bytes(range(256)) * 4096
    with Proxy(target) as proxy:
        connection = connect(proxy)
        connection.request("PUT", "/", body=body)
        assert connection.getresponse().read() == body
        connection.close()


def test_requests_are_counted_on_one_connection(target: tuple[str, int]) -> None:
    with Proxy(target) as proxy:
        connection = connect(proxy)
        for _ in range(5):
            assert len(get(connection, 100)) == 100
        connection.request("PUT", "/", body=b"GET /1 HTTP/1.1\r\n\r\n")
        connection.getresponse().read()
        connection.close()
        stats = proxy.stats(reset=True)
        assert (stats["connections"], stats["requests"]) == (1, 6)
        assert stats["requests_by_method"] == {"GET": 5, "PUT": 1}
        assert stats["bytes_to_client"] > 500
        assert proxy.stats()["requests"] == 0


def test_first_byte_is_delayed_for_each_request(target: tuple[str, int]) -> None:
    with Proxy(target, delay_s=0.05) as proxy:
        connection = connect(proxy)
        get(connection, 1)
        start_s = time.monotonic()
        for _ in range(4):
            get(connection, 1)
        elapsed_s = time.monotonic() - start_s
        connection.close()
    assert elapsed_s >= 0.2


def test_delays_of_several_connections_overlap(target: tuple[str, int]) -> None:
    with Proxy(target, delay_s=0.5) as proxy:
        connections = [connect(proxy) for _ in range(40)]
        start_s = time.monotonic()
        with ThreadPoolExecutor(40) as pool:
            bodies = list(pool.map(get, connections, [10] * 40))
        elapsed_s = time.monotonic() - start_s
        for connection in connections:
            connection.close()
    assert bodies == [b"x" * 10] * 40
    # One behind the other they would take 20 s; a machine that stands still for some is no fault.
    assert 0.5 <= elapsed_s < 15.0


def test_bandwidth_is_shared_by_all_connections(target: tuple[str, int]) -> None:
    with Proxy(target, bandwidth_bytes_per_s=20 * MIB) as proxy:
        connections = [connect(proxy) for _ in range(4)]
        start_s = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            sizes = [len(body) for body in pool.map(get, connections, [2 * MIB] * 4)]
        elapsed_s = time.monotonic() - start_s
        for connection in connections:
            connection.close()
    assert sizes == [2 * MIB] * 4
    # 8 MiB at 20 MiB/s are 0.4 s; the burst allowance is 5 ms of it.
    assert elapsed_s >= 0.39


def test_unlimited_carries_400_mb_per_second_of_one_core(target: tuple[str, int]) -> None:
    """Client, proxy and target share this process; its processor time does not depend on what else runs."""
    with Proxy(target) as proxy:
        connection = connect(proxy)
        get(connection, MIB)
        rates = []
        for _ in range(3):
            start_s = time.process_time()
            assert len(get(connection, 128 * MIB)) == 128 * MIB
            rates.append(128 * MIB / (time.process_time() - start_s))
        connection.close()
    assert max(rates) >= 400e6


def test_reset_after_k_bytes(target: tuple[str, int]) -> None:
    with Proxy(target, faults=[Fault("reset", after_bytes=1000)]) as proxy:
        connection = connect(proxy)
        connection.request("GET", "/100000")
        with pytest.raises(ConnectionResetError):
            connection.getresponse().read()
        connection.close()
        assert proxy.stats()["faults"] == 1


def test_reset_before_any_answer(target: tuple[str, int]) -> None:
    with Proxy(target, faults=[Fault("reset")]) as proxy:
        connection = connect(proxy)
        connection.request("HEAD", "/5")
        with pytest.raises(ConnectionResetError):
            connection.getresponse()
        connection.close()


def test_truncate_gives_exactly_k_bytes(target: tuple[str, int]) -> None:
    with Proxy(target, faults=[Fault("truncate", after_bytes=1000)]) as proxy:
        connection = connect(proxy)
        connection.request("GET", "/100000")
        with pytest.raises(http.client.IncompleteRead) as caught:
            connection.getresponse().read()
        connection.close()
        assert caught.value.partial == b"x" * 1000


def test_cut_goes_silent_and_stays_open(target: tuple[str, int]) -> None:
    with Proxy(target, faults=[Fault("cut", after_bytes=10)]) as proxy:
        connection = connect(proxy, timeout_s=0.3)
        connection.request("GET", "/1000")
        response = connection.getresponse()
        assert response.read(10) == b"x" * 10
        with pytest.raises(TimeoutError):
            response.read(1)
        response.close()
        connection.close()


def test_corrupt_flips_one_bit_of_the_body(target: tuple[str, int]) -> None:
    with Proxy(target, faults=[Fault("corrupt", after_bytes=500)]) as proxy:
        connection = connect(proxy)
        body = get(connection, 1000)
        connection.close()
    assert body[:500] + body[501:] == b"x" * 999
    assert (body[500] ^ ord("x")).bit_count() == 1


def test_delay_fault_stalls_inside_the_body(target: tuple[str, int]) -> None:
    with Proxy(target, faults=[Fault("delay", after_bytes=10, delay_s=0.2)]) as proxy:
        connection = connect(proxy)
        start_s = time.monotonic()
        assert len(get(connection, 1000)) == 1000
        assert time.monotonic() - start_s >= 0.2
        connection.close()


def test_status_answers_without_asking_the_target(target: tuple[str, int]) -> None:
    with Proxy(target, faults=[Fault("status", status=503, match="PUT", times=1)]) as proxy:
        connection = connect(proxy)
        connection.request("PUT", "/", body=b"lost")
        response = connection.getresponse()
        assert (response.status, response.read()) == (503, b"")
        assert proxy.stats()["bytes_to_server"] == 0
        connection.request("PUT", "/", body=b"kept")
        assert connection.getresponse().read() == b"kept"
        connection.close()


def test_rules_match_requests_and_run_out(target: tuple[str, int]) -> None:
    with Proxy(target, faults=[Fault("status", status=404, match="/7 ", times=2)]) as proxy:
        connection = connect(proxy)
        statuses = []
        for path in ("/7", "/8", "/7", "/7"):
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
        assert statuses == [404, 200, 404, 200]
        proxy.set_faults([Fault("status", status=429)])
        connection.request("GET", "/8")
        assert connection.getresponse().status == 429
        connection.close()


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "explode"},
        {"kind": "reset", "after_bytes": -1},
        {"kind": "delay", "delay_s": -1.0},
        {"kind": "cut", "times": 0},
        {"kind": "status", "status": 42},
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"fault|status"):
        Fault(**rule)  # type: ignore[arg-type]


def test_other_protocols_pass(target: tuple[str, int]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Proxy(listener.getsockname(), delay_s=0.1) as proxy,
    ):
        with socket.create_connection(proxy.address) as client:
            server, _ = listener.accept()
            with server:
                for message in (b"\x16\x03\x01 hello", b"again"):
                    client.sendall(message)
                    assert server.recv(100) == message
                    start_s = time.monotonic()
                    server.sendall(message[::-1])
                    assert client.recv(100) == message[::-1]
                    assert time.monotonic() - start_s >= 0.08
        assert proxy.stats()["requests"] == 0


def test_a_target_that_is_not_there_resets_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = free.getsockname()
    with (
        Proxy(address) as proxy,
        socket.create_connection(proxy.address) as client,
        pytest.raises(ConnectionResetError),
    ):
        client.recv(1)


def test_close_ends_open_connections_and_threads(target: tuple[str, int]) -> None:
    before = threading.active_count()
    proxy = Proxy(target).start()
    connection = connect(proxy)
    get(connection, 10)
    proxy.close()
    assert threading.active_count() <= before + 1  # the target's own thread for that connection
    with pytest.raises((ConnectionError, http.client.BadStatusLine)):
        get(connection, 10)
    connection.close()


def test_process_of_its_own(target: tuple[str, int]) -> None:
    with ProxyProcess(f"{target[0]}:{target[1]}", delay_ms=30) as proxy:
        host, port = proxy.address.split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        start_s = time.monotonic()
        assert len(get(connection, 1000)) == 1000
        assert time.monotonic() - start_s >= 0.03
        proxy.set_faults([Fault("status", status=500)])
        connection.request("GET", "/1")
        assert connection.getresponse().status == 500
        connection.close()
        assert proxy.stats(reset=True)["requests"] == 2
        assert proxy.stats()["requests"] == 0


def test_process_says_when_it_cannot_start(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="status 2"):
        ProxyProcess("nowhere")
    assert "write HOST:PORT" in capfd.readouterr().err


def test_command_line_refuses_a_bandwidth_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--target", "127.0.0.1:1", "--bandwidth", "fast"])
    assert "fast" in capsys.readouterr().err


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_framing_does_not_depend_on_how_bytes_arrive(step: int) -> None:
    stream = (
        b"PUT /a HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /"
        b"PUT /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nGET /\r\n0\r\n\r\n"
        b"GET /c HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    requests = RequestStream()
    pieces = [piece for at in range(0, len(stream), step) for piece in requests.feed(stream[at : at + step])]
    assert b"".join(piece.data for piece in pieces) == stream
    first_lines = [piece.first_line for piece in pieces if piece.first_line]
    assert first_lines == ["PUT /a HTTP/1.1", "PUT /b HTTP/1.1", "GET /c HTTP/1.1"]


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_body_is_found_behind_an_interim_response(step: int) -> None:
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    stream = head + b"body"
    finder = BodyFinder()
    body = b""
    for at in range(0, len(stream), step):
        data = stream[at : at + step]
        body += data[finder.feed(data) :]
    assert body == b"body"
