"""The gateway as `forebay serve --webhdfs` runs it, and nginx with the same files, processes of their own."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_TIMEOUT_S = 30.0
EXIT_TIMEOUT_S = 30.0
POLL_S = 0.02
PREFIX = "/webhdfs/v1"
# One process, as the gateway is one.
NGINX = """
daemon off;
master_process off;
pid {place}/pid;
error_log {place}/error;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_requests 1000000;
  client_body_temp_path {place}/body;
  proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/fastcgi;
  uwsgi_temp_path {place}/uwsgi;
  scgi_temp_path {place}/scgi;
  open_file_cache max=10000;
  open_file_cache_valid 1h;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@dataclass(frozen=True)
class HttpServer:
    """A server on this host and its process."""

    port: int
    pid: int

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port


@contextmanager
def gateway(cache_dir: Path) -> Iterator[HttpServer]:
    """Serve a cache by WebHDFS."""
    command = [sys.executable, "-m", "forebay", "serve", "--json", "--cache-dir", str(cache_dir)]
    command += ["--webhdfs", "127.0.0.1:0"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(
                    f"the gateway ended with status {process.wait(EXIT_TIMEOUT_S)} before it served"
                )
            port = json.loads(line)["webhdfs"].rpartition(":")[2]
            yield HttpServer(int(port), process.pid)
        finally:
            _end(process)


@contextmanager
def nginx(root: Path) -> Iterator[HttpServer]:
    """Serve a folder by nginx. Raises: FileNotFoundError (there is none; see perf/README.md)."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise FileNotFoundError("nginx is not installed; `make bench` does that")
    with tempfile.TemporaryDirectory(prefix="forebay-perf-nginx-") as place:
        port = _free_port()
        config = Path(place) / "nginx.conf"
        config.write_text(NGINX.format(place=place, port=port, root=root))
        command = [program, "-e", f"{place}/error", "-c", str(config)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
            try:
                server = HttpServer(port, process.pid)
                _wait_until_served(server, process)
                yield server
            finally:
                _end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port: int = bound.getsockname()[1]
    return port


def _wait_until_served(server: HttpServer, process: subprocess.Popen[bytes]) -> None:
    give_up_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        try:
            socket.create_connection(server.address).close()
        except ConnectionRefusedError:
            if process.poll() is not None or time.monotonic() > give_up_s:
                raise RuntimeError("nginx does not serve") from None
            time.sleep(POLL_S)
        else:
            return


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
