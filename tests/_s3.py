"""An S3 server in threads of this process, as good or as bad as a test wants it: any key, any answer.

It knows GET and HEAD of objects with Range and If-Match, and ListObjectsV2. Signatures are not looked at.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, unquote_plus, urlsplit
from xml.sax.saxutils import escape

import pytest

BUCKET = "bucket"
MODIFIED_S = 1_700_000_000
# Behind whatever a key may go on with.
LAST = "\U0010ffff"
RANGE = re.compile(r"bytes=([0-9]+)-([0-9]+)")

# What is done with a request in place of the ordinary; False to go on with the ordinary after all.
Answer = Callable[["Handler"], object]


@dataclass(frozen=True)
class Request:
    """One request; path with the query."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def range(self) -> str | None:
        return self.headers.get("Range")

    @property
    def by_obstore(self) -> bool:
        return "object_store" in self.headers.get("User-Agent", "")


class FakeS3(ThreadingHTTPServer):
    """One bucket on a free port of the loopback device; a context manager.

    objects may be changed at any time. page_keys is the size of a page; interfere sees every request first;
    requests keeps what they were. partial_status is what a range is answered with.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.page_keys = 1_000
        self.partial_status = 206
        self.starts_after = True
        self.descending = False
        self.interfere: Answer | None = None
        self.requests: list[Request] = []
        # Counted on behind each change, before its answer, by whoever changes objects as a client.
        self.changes = 0
        self._sorted: tuple[int, list[str]] = (0, [])
        super().__init__(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def sorted_keys(self) -> list[str]:
        """Return the keys in order, sorted anew only if there may be others."""
        changes, keys = self._sorted
        now = self.changes
        if now != changes or len(keys) != len(self.objects):
            keys = sorted(self.objects.copy())
            self._sorted = now, keys
        return keys

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away in the middle: some tests do."""

    def fill(self, keys: list[str] | range, data: bytes = b"") -> None:
        """Put objects of the same bytes, named by these keys or by numbers of seven digits."""
        names = [f"{key:07}" if isinstance(key, int) else key for key in keys]
        self.objects.update(dict.fromkeys(names, data))

    def listings(self) -> list[dict[str, str]]:
        """Return the queries of all listings so far."""
        queries = (dict(parse_qsl(urlsplit(request.path).query)) for request in self.requests)
        return [query for query in queries if "list-type" in query]

    def gets(self) -> list[Request]:
        """Return the GETs of objects so far."""
        return [each for each in self.requests if each.method == "GET" and "list-type" not in each.path]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def give_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let boto3 find some credentials, and nothing of the machine's own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-for-a-test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-for-a-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def etag_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeS3

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self.answer_change()

    def do_POST(self) -> None:
        self.answer_change()

    def do_DELETE(self) -> None:
        self.answer_change()

    def answer_change(self) -> None:
        """Refuse: what can be changed is in _s3_writes.py."""
        self.refuse(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed")

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send an answer with these headers, underscores for dashes."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, words: str = "in words") -> None:
        """Send an error as S3 does: to a HEAD without its body."""
        body = f"<Error><Code>{code}</Code><Message>{words}</Message></Error>".encode()
        self.reply(status, b"" if self.command == "HEAD" else body)

    def _answer(self) -> None:
        self.server.requests.append(
            Request(self.command, self.path, {name.title(): value for name, value in self.headers.items()})
        )
        interfere = self.server.interfere
        if interfere is not None and interfere(self) is not False:
            return
        parts = urlsplit(self.path)
        bucket, _, key = parts.path[1:].partition("/")
        if bucket != BUCKET:
            self.refuse(404, "NoSuchBucket")
        elif key:
            self._answer_object(unquote(key))
        else:
            self._answer_listing(dict(parse_qsl(parts.query, keep_blank_values=True)))

    def object_headers(self, key: str, data: bytes) -> dict[str, str]:
        """Return the headers that tell of an object."""
        return {"ETag": f'"{etag_of(data)}"', "Last_Modified": self.date_time_string(MODIFIED_S)}

    def _answer_object(self, key: str) -> None:
        data = self.server.objects.get(key)
        if data is None:
            self.refuse(404, "NoSuchKey")
            return
        headers = self.object_headers(key, data)
        if self.headers.get("If-Match", headers["ETag"]) != headers["ETag"]:
            self.refuse(HTTPStatus.PRECONDITION_FAILED, "PreconditionFailed")
            return
        wanted = RANGE.fullmatch(self.headers.get("Range", ""))
        if wanted is None:
            self.reply(200, data, **headers)
            return
        first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
        if first > last:
            self.refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "InvalidRange")
            return
        headers["Content_Range"] = f"bytes {first}-{last}/{len(data)}"
        self.reply(self.server.partial_status, data[first : last + 1], **headers)

    def _answer_listing(self, query: dict[str, str]) -> None:
        server = self.server
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = unquote_plus(query.get("continuation-token", ""))
        if not after and server.starts_after:
            after = query.get("start-after", "")
        keys = server.sorted_keys()
        at, end = bisect_left(keys, prefix), bisect_left(keys, prefix + LAST)
        at = max(at, bisect_right(keys, after + LAST if delimiter and after.endswith(delimiter) else after))
        count_max = min(int(query.get("max-keys", "1000")), server.page_keys)
        objects: list[str] = []
        prefixes: list[str] = []
        last = after
        while at < end and len(objects) + len(prefixes) < count_max:
            parts = keys[at][len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            last = prefix + parts[0] + delimiter if parts[1] else keys[at]
            (prefixes if parts[1] else objects).append(last)
            at = bisect_left(keys, last + LAST) if parts[1] else at + 1
        truncated = at < end
        if server.descending:
            objects.reverse()
        self.reply(200, self._document(objects, prefixes, quote(last) if truncated else ""))

    def _document(self, objects: list[str], prefixes: list[str], token: str) -> bytes:
        modified = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(MODIFIED_S))
        items = [
            f"<Contents><Key>{escape(quote(key))}</Key><LastModified>{modified}</LastModified>"
            f"<ETag>&quot;{etag_of(data)}&quot;</ETag><Size>{len(data)}</Size></Contents>"
            for key in objects
            if (data := self.server.objects.get(key)) is not None
        ]
        items += [
            f"<CommonPrefixes><Prefix>{escape(quote(group))}</Prefix></CommonPrefixes>" for group in prefixes
        ]
        more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<EncodingType>url</EncodingType><IsTruncated>{str(bool(token)).lower()}</IsTruncated>{more}"
            f"{''.join(items)}</ListBucketResult>"
        ).encode()
