"""A listing double: it answers ListObjectsV2 of a bucket of made-up keys, and knows no object of them.

A real server with a million objects takes long to fill, and most of what it does for a page happens on its
disks. This one makes the same documents (1,000 keys a page; prefix, delimiter, start-after and continuation
tokens are honoured) and waits a while before each, as a request to an object store waits.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

PAGE_KEYS: Final = 1_000
SIZE_BYTES: Final = 102_400
# Objects whose keys lie side by side were written one after another, so many a second.
KEYS_A_SECOND: Final = 20
FIRST_WRITTEN_S: Final = 1_767_225_600
START_TIMEOUT_S: Final = 60.0
# It checks no signature, but its clients want something to sign with.
CREDENTIALS: Final = {
    "AWS_ACCESS_KEY_ID": "perf",
    "AWS_SECRET_ACCESS_KEY": "perf",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def key_of(number: int, keys_a_folder: int) -> str:
    """Give the key of an object; keys are in the order of their numbers."""
    return f"{number // keys_a_folder:06}/{number:010}.bin"


@contextmanager
def listing_server(key_count: int, keys_a_folder: int, delay_ms: float) -> Iterator[str]:
    """Serve so many keys from a process of its own; gives the URL of the endpoint."""
    os.environ.update(CREDENTIALS)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(key_count, keys_a_folder, delay_ms / 1000, theirs), daemon=True
    )
    process.start()
    try:
        if not ours.poll(START_TIMEOUT_S):
            raise TimeoutError("the listing server did not start in time")
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()
        ours.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, keys: list[str], delay_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.keys = keys
        self.delay_s = delay_s


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    server: _Server

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        due_s = time.monotonic() + self.server.delay_s
        body = _page(self.server.keys, query).encode("ascii")
        time.sleep(max(0.0, due_s - time.monotonic()))
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        return


def _page(keys: list[str], query: dict[str, str]) -> str:
    prefix = query.get("prefix", "")
    after = query.get("continuation-token") or query.get("start-after", "")
    count = min(int(query.get("max-keys", PAGE_KEYS)), PAGE_KEYS)
    first = max(bisect_left(keys, prefix), bisect_right(keys, after))
    end = bisect_left(keys, prefix + "\x7f")
    if query.get("delimiter"):
        found, rest, more = _folders(keys, first, end, prefix, count)
    else:
        last = min(first + count, end)
        found, rest, more = "".join(map(_entry, keys[first:last])), keys[last - 1], last < end
    token = f"<NextContinuationToken>{rest}</NextContinuationToken>" if more else ""
    truncated = "true" if more else "false"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Prefix>{prefix}</Prefix><IsTruncated>{truncated}</IsTruncated>{token}{found}</ListBucketResult>"
    )


def _folders(keys: list[str], first: int, end: int, prefix: str, count: int) -> tuple[str, str, bool]:
    """Return common prefixes, the last key that they stand for, and whether more come."""
    found: list[str] = []
    while first < end and len(found) < count:
        folder = prefix + keys[first][len(prefix) :].partition("/")[0] + "/"
        found.append(f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>")
        first = bisect_left(keys, folder + "\x7f")
    return "".join(found), keys[first - 1], first < end


def _entry(key: str) -> str:
    number = int(key[-14:-4])
    return (
        f"<Contents><Key>{key}</Key><LastModified>{_time(number // KEYS_A_SECOND)}</LastModified>"
        f"<ETag>&quot;{number * 0x9E3779B97F4A7C15:032x}&quot;</ETag><Size>{SIZE_BYTES}</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )


@functools.lru_cache
def _time(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(FIRST_WRITTEN_S + second))


def _serve(key_count: int, keys_a_folder: int, delay_s: float, pipe: Connection) -> None:
    server = _Server([key_of(number, keys_a_folder) for number in range(key_count)], delay_s)
    pipe.send(server.server_port)
    server.serve_forever()
