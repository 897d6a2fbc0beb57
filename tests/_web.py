"""A web server over a folder, in threads of this process: as good or as bad as a test wants it."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

# What is done with a request in place of the ordinary; False to go on with the ordinary after all.
Answer = Callable[["Handler"], object]

RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")


class WebServer(ThreadingHTTPServer):
    """Serves a folder on a free port of the loopback device; a context manager.

    ranges and tags say whether it answers to Range and If-Match and gives ETags; what is put into script
    answers the next requests, requests keeps (method, path, Range) of all.
    """

    daemon_threads = True

    def __init__(self, folder: Path, *, ranges: bool = True, tags: bool = True) -> None:
        self.ranges = ranges
        self.tags = tags
        self.script: deque[Answer] = deque()
        self.requests: list[tuple[str, str, str | None]] = []
        self.connection_count = 0
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connection_count += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away in the middle: some tests do."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(SimpleHTTPRequestHandler):
    """Python's own handler, which knows neither ranges nor tags, with both added where wanted."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: WebServer

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""

    def reply(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        """Send an answer with these headers, underscores for dashes, exactly as given."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hang_up(self) -> None:
        """Break the connection off once what was sent so far is out."""
        self.wfile.flush()
        self.close_connection = True

    def _answer(self) -> None:
        self.server.requests.append((self.command, self.path, self.headers.get("Range")))
        if self.server.script and self.server.script.popleft()(self) is not False:
            return
        place = self.translate_path(self.path)
        if os.path.isfile(place) and not self.path.endswith("/"):
            # Of one inode, though the name may mean another by now.
            with open(place, "rb") as file:
                self._answer_file(file.read(), os.fstat(file.fileno()))
        elif self.command == "GET":
            super().do_GET()
        else:
            super().do_HEAD()

    def _answer_file(self, data: bytes, status: os.stat_result) -> None:
        headers = {"Last_Modified": self.date_time_string(int(status.st_mtime))}
        if self.server.tags:
            headers["ETag"] = tag = f'"{status.st_mtime_ns:x}.{status.st_ino:x}.{status.st_size:x}"'
            if self.headers.get("If-Match", tag) != tag:
                self.reply(HTTPStatus.PRECONDITION_FAILED, **headers)
                return
        wanted = RANGE.fullmatch(self.headers.get("Range", "")) if self.server.ranges else None
        if wanted is None:
            self.reply(HTTPStatus.OK, data, **headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        if first > last:
            self.reply(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, Content_Range=f"bytes */{len(data)}")
            return
        headers["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
        self.reply(HTTPStatus.PARTIAL_CONTENT, data[first : last + 1], **headers)
