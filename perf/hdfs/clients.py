"""What asks the servers: a plain socket for one large answer, wrk for many small ones."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perf.hdfs.servers import HttpServer

SCRIPT = Path(__file__).parent / "opens.lua"
TIMEOUT_S = 60.0
BUFFER_BYTES = 4 << 20
HEAD_BYTES_MAX = 4_096
OPEN = "?op=OPEN"


@contextmanager
def connected(server: HttpServer) -> Iterator[http.client.HTTPConnection]:
    """Give a connection, which lasts from request to request."""
    connection = http.client.HTTPConnection(*server.address, timeout=TIMEOUT_S)
    try:
        yield connection
    finally:
        connection.close()


def get(connection: http.client.HTTPConnection, path: str) -> bytes:
    """Return the body of an answer. Raises: RuntimeError (it is none of status 200)."""
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{path}: status {answer.status}, {body[:200]!r}")
    return body


def seconds_to_get(server: HttpServer, path: str, size_bytes: int) -> float:
    """Receive a file into one buffer again and again; returns the seconds until all of it was here.

    Raises: RuntimeError (another status, or fewer bytes).
    """
    buffer = memoryview(bytearray(BUFFER_BYTES))
    with socket.create_connection(server.address, timeout=TIMEOUT_S) as connection:
        started = time.perf_counter()
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            received = connection.recv(HEAD_BYTES_MAX)
            head += received
            if not received or not head.startswith(b"HTTP/1.1 200"[: len(head)]):
                raise RuntimeError(f"{path}: answered by {head[:200]!r}")
        left = size_bytes - len(head.partition(b"\r\n\r\n")[2])
        while left:
            received_bytes = connection.recv_into(buffer[: min(left, BUFFER_BYTES)])
            if not received_bytes:
                raise RuntimeError(f"{path}: {left} bytes are missing")
            left -= received_bytes
        return time.perf_counter() - started


def files_a_second(server: HttpServer, before: str, behind: str, load: dict[str, Any]) -> float:
    """Have wrk get the small files by so many connections for a while; returns whole files a second.

    Raises: RuntimeError (anything failed, or was shorter than a file); FileNotFoundError (there is no wrk).
    """
    program = shutil.which("wrk")
    if program is None:
        raise FileNotFoundError("wrk is not installed; `make bench` does that")
    command = [program, f"-t{load['client_threads']}", f"-c{load['connections']}"]
    command += [f"-d{load['open_seconds']}s", "-s", str(SCRIPT), f"http://127.0.0.1:{server.port}"]
    command += ["--", str(load["small_count"]), before, behind]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    counts = next(line for line in said.splitlines() if line.startswith("counts "))
    answers, taken_us, received_bytes, failures = map(int, counts.split()[1:])
    if failures or not answers or received_bytes < answers * load["small_bytes"]:
        raise RuntimeError(f"{failures} of {answers} answers failed, {received_bytes} bytes came: {said}")
    return answers / (taken_us / 1e6)
