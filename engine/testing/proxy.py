"""A TCP proxy that makes loopback behave like a distant or a failing server.

It adds time to the first byte of each response, shares one bandwidth among all connections, strikes
responses with faults, and counts connections, requests and bytes. It passes any protocol; of HTTP/1.1 it
knows requests from each other. Not for pipelined clients: a response is told from the next by the client's
having sent again.

In a process of its own: ``python -m forebay.testing.proxy --listen 127.0.0.1:9001 --target 127.0.0.1:9000
--delay-ms 20 --bandwidth 200MB``, or ``ProxyProcess`` from a program.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import http
import json
import signal
import socket
import struct
import sys
import termios
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Self

from forebay.config import parse_bytes
from forebay.errors import ConfigError
from forebay.testing._http import BodyFinder, Piece, RequestStream
from forebay.testing.faults import Fault, FaultPlan

_CHUNK_BYTES: Final = 256 << 10
_CHUNK_BYTES_MIN: Final = 1 << 10
_BACKLOG: Final = 512
_CONNECT_TIMEOUT_S: Final = 10.0
_DELIVERY_TIMEOUT_S: Final = 5.0
_DELIVERY_STEP_S: Final = 0.001
# struct linger: on, no time to wait; closing then sends RST.
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
# What the bucket may make up for: sleeping is never on time.
_BURST_S: Final = 0.005


class Bandwidth:
    """A token bucket: one rate that any number of threads share, in the order in which they ask."""

    def __init__(self, bytes_per_s: float | None) -> None:
        """Pass bytes_per_s, or everything at once with None."""
        self._rate: Final = bytes_per_s
        self._lock: Final = threading.Lock()
        self._free_at_s = 0.0
        steps = _CHUNK_BYTES if bytes_per_s is None else int(bytes_per_s / 100)
        self.chunk_bytes: Final = max(_CHUNK_BYTES_MIN, min(_CHUNK_BYTES, steps))

    def take(self, size_bytes: int) -> None:
        """Wait until size_bytes more may pass."""
        if self._rate is None:
            return
        with self._lock:
            now_s = time.monotonic()
            self._free_at_s = max(self._free_at_s, now_s - _BURST_S) + size_bytes / self._rate
            wait_s = self._free_at_s - now_s
        if wait_s > 0:
            time.sleep(wait_s)


class _Counts:
    """What has passed since the start or the last reset. Threads: any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._methods: Counter[str] = Counter()

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self._counts[name] += count

    def add_request(self, first_line: str) -> None:
        with self._lock:
            self._counts["requests"] += 1
            self._methods[first_line.partition(" ")[0]] += 1

    def read(self, *, reset: bool) -> dict[str, Any]:
        names = ("connections", "requests", "bytes_to_server", "bytes_to_client", "faults")
        with self._lock:
            counts: dict[str, Any] = {name: self._counts[name] for name in names}
            counts["requests_by_method"] = dict(self._methods)
            if reset:
                self._counts.clear()
                self._methods.clear()
        return counts


class _Response:
    """What the connection is answering at the moment: when its first byte is due, and what befalls it."""

    def __init__(self, due_s: float, fault: Fault | None) -> None:
        self.due_s = due_s
        self.fault = fault
        self.body_bytes = 0
        self.body = BodyFinder()


class _Ended(Exception):  # noqa: N818  (a signal within this module, not an error)
    """The connection is over in both directions."""


class _Connection:
    """One client and its own connection to the target: two threads, one for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._response = _Response(0.0, None)
        self._answered = True
        self._swallowing = False
        self._cut = False
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._running = 2
        pumps = (self._up, self._down)
        self._threads = [threading.Thread(target=self._run, args=(pump,), daemon=True) for pump in pumps]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """End both directions and wait for their threads, the last of which closes the sockets."""
        self._over.set()
        self._shut_down(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _shut_down(self, how: int) -> None:
        for each in (self._client, self._server):
            with contextlib.suppress(OSError):
                each.shutdown(how)

    def _run(self, pump: Callable[[], None]) -> None:
        try:
            pump()
        except (_Ended, OSError):
            self._over.set()
            # Wakes the other thread, and sends nothing: a reset stays a reset.
            self._shut_down(socket.SHUT_RD)
        finally:
            with self._lock:
                self._running -= 1
                last = self._running == 0
            if last:
                self._client.close()
                self._server.close()
                self._proxy.forget(self)

    def _receive(self, source: socket.socket, buffer: memoryview) -> memoryview:
        """Return what came, empty at an orderly end.

        Raises: _Ended (the other direction ended the connection).
        """
        size_bytes = source.recv_into(buffer)
        if self._over.is_set():
            raise _Ended
        return buffer[:size_bytes]

    def _up(self) -> None:
        """Pass on what the client sends."""
        requests = RequestStream()
        buffer = memoryview(bytearray(self._proxy.up.chunk_bytes))
        while data := self._receive(self._client, buffer):
            for piece in requests.feed(bytes(data)):
                self._expect_response(piece)
                if not self._swallowing and not self._cut:
                    self._proxy.up.take(len(piece.data))
                    self._server.sendall(piece.data)
                    self._proxy.counts.add("bytes_to_server", len(piece.data))
        if self._cut or self._swallowing:
            raise _Ended
        self._server.shutdown(socket.SHUT_WR)

    def _expect_response(self, piece: Piece) -> None:
        """Note when the next byte to the client is due, and at a new request what befalls its response."""
        due_s = time.monotonic() + self._proxy.delay_s
        if piece.first_line is not None:
            self._proxy.counts.add_request(piece.first_line)
        if piece.first_line is not None or (piece.raw and self._answered):
            self._response = _Response(due_s, self._proxy.plan.draw(piece.first_line or ""))
            self._answer_instead(self._response)
        else:
            self._response.due_s = due_s
        self._answered = False

    def _answer_instead(self, response: _Response) -> None:
        """Give the answer of a ``status`` fault; the request goes no further."""
        fault = response.fault
        self._swallowing = fault is not None and fault.kind == "status"
        if fault is None or not self._swallowing:
            return
        self._proxy.counts.add("faults")
        self._wait_until(response.due_s)
        reason = http.HTTPStatus(fault.status).phrase if fault.status in set(http.HTTPStatus) else "Fault"
        self._send_down(f"HTTP/1.1 {fault.status} {reason}\r\nContent-Length: 0\r\n\r\n".encode("ascii"))

    def _wait_until(self, due_s: float) -> None:
        wait_s = due_s - time.monotonic()
        if wait_s > 0 and self._over.wait(wait_s):
            raise _Ended

    def _down(self) -> None:
        """Pass on what the target sends."""
        buffer = memoryview(bytearray(self._proxy.down.chunk_bytes))
        while data := self._receive(self._server, buffer):
            response = self._response
            if not self._answered:
                self._answered = True
                self._wait_until(response.due_s)
            if response.fault is None:
                self._send_down(data)
            else:
                self._send_down_struck(response, response.fault, data)
        self._client.shutdown(socket.SHUT_WR)

    def _send_down(self, data: bytes | memoryview) -> None:
        self._proxy.down.take(len(data))
        self._client.sendall(data)
        self._proxy.counts.add("bytes_to_client", len(data))

    def _send_down_struck(self, response: _Response, fault: Fault, data: memoryview) -> None:
        """Pass on data up to the place where the fault strikes, and strike if that is within."""
        strike_at = 0
        if fault.after_bytes is not None:
            body_start = response.body.feed(data)
            strike_at = body_start + fault.after_bytes - response.body_bytes
            response.body_bytes += len(data) - body_start
        if strike_at >= len(data):
            self._send_down(data)
            return
        self._send_down(data[:strike_at])
        response.fault = None
        self._proxy.counts.add("faults")
        self._strike(fault, data[strike_at:])

    def _wait_until_delivered(self) -> None:
        """Wait until the client's side has what was sent: a reset throws away what is still on its way."""
        deadline_s = time.monotonic() + _DELIVERY_TIMEOUT_S
        while _undelivered_bytes(self._client) and time.monotonic() < deadline_s:
            self._wait_until(time.monotonic() + _DELIVERY_STEP_S)

    def _strike(self, fault: Fault, rest: memoryview) -> None:
        if fault.kind == "delay":
            self._wait_until(time.monotonic() + fault.delay_s)
        elif fault.kind == "corrupt":
            rest[0] ^= 1
        elif fault.kind == "truncate":
            self._client.shutdown(socket.SHUT_WR)
            raise _Ended
        elif fault.kind == "reset":
            self._wait_until_delivered()
            for each in (self._client, self._server):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            raise _Ended
        else:
            self._cut = True
            self._over.wait()
            raise _Ended
        self._send_down(rest)


class Proxy:
    """A running proxy to one target; a context manager.

    delay_s is the least time from the last byte of a request to the first of its response,
    bandwidth_bytes_per_s what all connections together carry in each direction (None: no limit). Threads:
    any.
    Raises: OSError (the address to listen on is taken).
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        delay_s: float = 0.0,
        bandwidth_bytes_per_s: float | None = None,
        faults: Iterable[Fault] = (),
    ) -> None:
        """Listen; ``start`` or entering the context serves."""
        self.delay_s: Final = delay_s
        self.up: Final = Bandwidth(bandwidth_bytes_per_s)
        self.down: Final = Bandwidth(bandwidth_bytes_per_s)
        self.plan: Final = FaultPlan(faults)
        self.counts: Final = _Counts()
        self._target: Final = target
        self._listener: Final = socket.create_server(listen, backlog=_BACKLOG)
        host, port = self._listener.getsockname()[:2]
        self.address: Final[tuple[str, int]] = (host, port)
        self.url: Final = f"http://{host}:{port}"
        self._lock: Final = threading.Lock()
        self._connections: set[_Connection] = set()
        self._acceptor: Final = threading.Thread(target=self._accept, daemon=True)

    def stats(self, *, reset: bool = False) -> dict[str, Any]:
        """Return the counts of connections, requests, bytes each way and faults; begin anew with reset."""
        return self.counts.read(reset=reset)

    def set_faults(self, faults: Iterable[Fault]) -> None:
        """Put these rules in the place of the earlier ones."""
        self.plan.replace(faults)

    def start(self) -> Self:
        """Begin to serve, in threads of this process."""
        self._acceptor.start()
        return self

    def close(self) -> None:
        """Stop listening, end every connection and wait for the threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._acceptor.ident is not None:
            self._acceptor.join()
        self._listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            connection.end()

    def forget(self, connection: _Connection) -> None:
        """Drop a connection that has ended."""
        with self._lock:
            self._connections.discard(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=_CONNECT_TIMEOUT_S)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                client.close()
                continue
            server.settimeout(None)
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.counts.add("connections")
            connection = _Connection(self, client, server)
            with self._lock:
                self._connections.add(connection)
            connection.start()

    def __enter__(self) -> Self:
        """Begin to serve."""
        return self.start()

    def __exit__(self, *exception: object) -> None:
        """Stop."""
        self.close()


def _undelivered_bytes(connection: socket.socket) -> int:
    """Return how many bytes were sent and not yet acknowledged."""
    answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


def _parse_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: write HOST:PORT")
    return host, int(port)


def _parse_bandwidth(text: str) -> int:
    try:
        return parse_bytes(text, "bandwidth")
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _obey(proxy: Proxy, lines: Iterable[str]) -> None:
    """Answer the commands of a ProxyProcess, a JSON object a line, until it closes its end."""
    for line in lines:
        command = json.loads(line)
        if command["do"] == "stats":
            print(json.dumps(proxy.stats(reset=command["reset"])), flush=True)
        else:
            proxy.set_faults(Fault(**fault) for fault in command["faults"])
            print("{}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a proxy until it is interrupted; then say what has passed."""
    parser = argparse.ArgumentParser(
        prog="python -m forebay.testing.proxy", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--listen", type=_parse_address, default=("127.0.0.1", 0), metavar="HOST:PORT")
    parser.add_argument("--target", type=_parse_address, required=True, metavar="HOST:PORT")
    parser.add_argument(
        "--delay-ms", type=float, default=0.0, help="from a request to its response's first byte"
    )
    parser.add_argument(
        "--bandwidth", type=_parse_bandwidth, help="a second, all connections together: 200MB"
    )
    parser.add_argument(
        "--control", action="store_true", help="take commands on standard input; end when it ends"
    )
    options = parser.parse_args(arguments)
    proxy = Proxy(
        options.target,
        listen=options.listen,
        delay_s=options.delay_ms / 1000,
        bandwidth_bytes_per_s=options.bandwidth,
    )
    with proxy:
        print(json.dumps({"listening": proxy.address}), flush=True)
        if options.control:
            _obey(proxy, sys.stdin)
            return 0
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    print(json.dumps(proxy.stats()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
