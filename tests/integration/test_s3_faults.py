"""The S3 driver against what fails: what is got over, what is refused, and what is raised as what."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import NotFound, Stale, UnderStorageError
from forebay.testing.faults import Fault
from forebay.testing.proxy import Proxy
from forebay.testing.s3 import S3Server
from forebay.ufs import UnderStorage, open_storage
from forebay.ufs._s3_endpoint import endpoint_of
from tests._s3 import FakeS3
from tests.integration._sites import log_in, proxy_of

BIG = os.urandom(3 << 20)
GET_BIG = "GET /bucket/big"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    root = tmp_path_factory.mktemp("buckets")
    (root / "bucket").mkdir()
    (root / "bucket/big").write_bytes(BIG)
    with S3Server(root) as server:
        yield server


CLIENTS = ["boto3", "obstore, ranges", "obstore, whole objects"]


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Which client makes the first attempt, and how; every later one is boto3's."""
    return str(request.param)


@pytest.fixture
def proxy(server: S3Server, client: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before a server that answers ranges as the client needs it."""
    log_in(server, monkeypatch)
    with contextlib.ExitStack() as stack:
        if client == "obstore, ranges":
            fake = stack.enter_context(FakeS3())
            fake.objects["big"] = BIG
            yield stack.enter_context(Proxy(("127.0.0.1", fake.server_address[1])))
        else:
            yield stack.enter_context(proxy_of(server))


def storage_at(url: str, client: str = "boto3", **options: Any) -> UnderStorage:
    if client == "boto3":
        options["client"] = "boto3"
    else:
        # As if a range had been asked for before.
        endpoint_of(url).learn_ranges(206 if client == "obstore, ranges" else 200)
    return open_storage("s3://bucket", {"endpoint_url": url, "attempts": 3, **options})


def patience_for(fault: Fault) -> dict[str, float]:
    """Be impatient where silence is the fault alone: any other is a busy machine's, and costs an attempt."""
    return {"timeout_s": 1.0} if fault.kind == "cut" else {}


def read(storage: UnderStorage, path: str = "big", offset: int = 0, length: int = len(BIG)) -> bytes:
    with storage.read_range(path, offset, length) as body:
        buffer = bytearray(body.length)
        body.readinto(memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", after_bytes=1_000_000, times=2),
        Fault("truncate", after_bytes=1_000_000, times=2),
        Fault("cut", after_bytes=500_000, times=1),
        Fault("reset", after_bytes=0, times=1),
        Fault("status", status=503, times=2),
        Fault("status", status=500, times=2),
        Fault("status", status=429, times=2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.after_bytes}-{fault.status}",
)
def test_faults_that_pass_are_got_over(proxy: Proxy, client: str, fault: Fault) -> None:
    storage = storage_at(proxy.url, client, **patience_for(fault))
    proxy.set_faults([fault])
    assert read(storage) == BIG
    assert proxy.stats()["faults"] == fault.times
    storage.close()


def test_a_body_is_resumed_where_it_broke_off(proxy: Proxy, client: str) -> None:
    storage = storage_at(proxy.url, client)
    proxy.set_faults([Fault("reset", after_bytes=2 << 20, times=1)])
    assert read(storage) == BIG
    assert proxy.stats()["bytes_to_client"] < len(BIG) + (512 << 10)
    storage.close()


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (Fault("reset", after_bytes=10), UnderStorageError, "big"),
        (Fault("truncate", after_bytes=10), UnderStorageError, "big"),
        (Fault("cut", after_bytes=10), TimeoutError, "timed out"),
        (Fault("status", status=503), UnderStorageError, "HTTP 503"),
        (Fault("status", status=403), PermissionError, "HTTP 403"),
        (Fault("status", status=401), PermissionError, "HTTP 401"),
        (Fault("status", status=404), NotFound, "HTTP 404"),
        (Fault("status", status=504), TimeoutError, "HTTP 504"),
        (Fault("status", status=418), UnderStorageError, "HTTP 418"),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else "",
)
def test_faults_that_stay_are_raised_as_what_they_are(
    proxy: Proxy, client: str, fault: Fault, kind: type[OSError], words: str
) -> None:
    storage = storage_at(proxy.url, client, attempts=2, **patience_for(fault))
    proxy.set_faults([fault])
    start_s = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        read(storage)
    assert time.monotonic() - start_s < 60
    assert type(caught.value) is kind
    assert caught.value.filename == "s3://bucket/big"
    assert caught.value.strerror
    proxy.set_faults([])
    assert read(storage) == BIG
    storage.close()


def test_no_answer_is_a_timeout(proxy: Proxy) -> None:
    storage = storage_at(proxy.url, attempts=1, timeout_s=1)
    proxy.set_faults([Fault("cut")])
    for attempt in (lambda: storage.stat("big"), lambda: list(storage.list(""))):
        with pytest.raises((TimeoutError, UnderStorageError)) as caught:
            attempt()
        assert isinstance(caught.value, TimeoutError)
    storage.close()


def test_nobody_there_is_said(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(server, monkeypatch)
    # Nobody listens, and nobody else is given the port meanwhile.
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        storage = storage_at(f"http://127.0.0.1:{reserved.getsockname()[1]}", attempts=1)
        with pytest.raises(UnderStorageError, match="Could not connect"):
            storage.stat("big")
        storage.close()


def test_wrong_keys_are_forbidden(server: S3Server, client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(server, monkeypatch)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    storage = storage_at(server.endpoint_url, client)
    for attempt in (lambda: storage.stat("big"), lambda: read(storage), lambda: list(storage.list(""))):
        with pytest.raises(PermissionError, match="HTTP 403") as caught:
            attempt()
        assert "another-secret" not in str(caught.value)
    storage.close()


def test_no_keys_at_all_is_said(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    storage = storage_at(proxy.url)
    with pytest.raises(PermissionError, match="credentials"):
        storage.stat("big")
    storage.close()


Respond = Callable[[BaseHTTPRequestHandler], None]


class Scripted:
    """An HTTP server whose every answer is one function's."""

    def __init__(self) -> None:
        self.respond: Respond = lambda handler: None
        self.requests: list[str] = []
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                scripted.requests.append(self.path)
                scripted.respond(self)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: object) -> None:
                """Keep standard error for failures."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    scripted = Scripted()
    with scripted.server as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield scripted
        server.shutdown()
        thread.join()


def answer(status: int, body: bytes, **headers: str) -> Respond:
    """Answer with these headers; a Content-Length is the body's unless it is given."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        sent = {"Content_Length": str(len(body)), "ETag": '"v1"', **headers}
        handler.send_response(status)
        for name, value in sent.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return respond


OBJECT = b"0123456789"


@pytest.mark.parametrize(
    ("respond", "offset", "length", "expected"),
    [
        (answer(206, b"234", Content_Range="bytes 2-4/10"), 2, 3, b"234"),
        (answer(200, b"234", Content_Range="bytes 2-4/10"), 2, 3, b"234"),
        (answer(206, b"89", Content_Range="bytes 8-9/10"), 8, 5, b"89"),
        (answer(200, OBJECT), 0, 10, OBJECT),
        (answer(200, OBJECT), 0, 4_000_000, OBJECT),
    ],
)
def test_what_is_provably_the_range_is_taken(
    scripted: Scripted, client: str, respond: Respond, offset: int, length: int, expected: bytes
) -> None:
    scripted.respond = respond
    storage = storage_at(scripted.url, client)
    with storage.read_range("a", offset, length) as body:
        assert (body.info.size, body.info.version, body.length) == (10, "v1", len(expected))
    assert read(storage, "a", offset, length) == expected
    storage.close()


@pytest.mark.parametrize(
    ("respond", "offset", "length"),
    [
        (answer(200, OBJECT), 2, 3),
        (answer(206, b"234"), 2, 3),
        (answer(206, b"345", Content_Range="bytes 3-5/10"), 2, 3),
        (answer(206, b"23", Content_Range="bytes 2-3/10"), 2, 3),
        (answer(206, b"2345", Content_Range="bytes 2-5/10"), 2, 3),
        (answer(206, b"2345", Content_Range="bytes 2-4/10"), 2, 3),
        (answer(206, b"234", Content_Range="bytes 2-4/*"), 2, 3),
        (answer(206, b"234", Content_Range="bytes 4-2/10"), 2, 3),
        (answer(206, b"234", Content_Range="items 2-4/10"), 2, 3),
        (answer(206, b"234", Content_Range="bytes 2-4/99999999999999999999999"), 2, 3),
    ],
)
def test_any_other_range_is_refused(
    scripted: Scripted, client: str, respond: Respond, offset: int, length: int
) -> None:
    scripted.respond = respond
    storage = storage_at(scripted.url, client, attempts=2)
    with pytest.raises(UnderStorageError, match=f"asked for bytes {offset}-{offset + length - 1}, got"):
        read(storage, "a", offset, length)
    storage.close()


def test_an_enormous_size_is_only_a_figure(scripted: Scripted, client: str) -> None:
    size = 5 << 40
    if client == "obstore, whole objects":
        scripted.respond = answer(200, b"012", Content_Length=str(size))
    else:
        scripted.respond = answer(206, b"012", Content_Range=f"bytes 0-2/{size}")
    storage = storage_at(scripted.url, client)
    with storage.read_range("a", 0, 3) as body:
        assert (body.length, body.info.size) == (3, size)
        buffer = bytearray(3)
        body.readinto(memoryview(buffer))
        assert buffer == b"012"
    storage.close()


@pytest.mark.parametrize("length", [10, 5 << 40])
def test_an_enormous_body_that_never_comes_is_given_up(scripted: Scripted, client: str, length: int) -> None:
    """Whatever was asked for: memory is taken for what comes, not for what is claimed."""
    if client == "obstore, whole objects":
        scripted.respond = answer(200, b"012", Content_Length=str(5 << 40))
    else:
        last = length - 1
        scripted.respond = answer(
            206, b"012", Content_Range=f"bytes 0-{last}/{length}", Content_Length=str(length)
        )
    storage = storage_at(scripted.url, client, attempts=2)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with storage.read_range("a", 0, length) as body:
        assert body.length == length
        with pytest.raises(UnderStorageError):
            body.readinto(memoryview(bytearray(10)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib < 64 << 10
    storage.close()


def test_a_whole_object_is_read_as_far_as_wanted(scripted: Scripted) -> None:
    """A server that answers ranges with 200 is asked without one, and the object may be longer."""
    scripted.respond = answer(200, OBJECT)
    storage = storage_at(scripted.url, "obstore, whole objects")
    assert read(storage, "a", 0, 3) == OBJECT[:3]
    storage.close()


def test_another_version_is_stale_though_the_server_ignores_if_match(scripted: Scripted, client: str) -> None:
    scripted.respond = answer(206, b"012", Content_Range="bytes 0-2/10", ETag='"v2"')
    storage = storage_at(scripted.url, client)
    with pytest.raises(Stale, match=r"'v1'.*'v2'"):
        storage.read_range("a", 0, 3, "v1")
    storage.close()


def test_a_failed_precondition_is_stale(scripted: Scripted, client: str) -> None:
    scripted.respond = answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
    storage = storage_at(scripted.url, client)
    with pytest.raises(Stale):
        storage.read_range("a", 0, 3, "v1")
    storage.close()


def test_a_resumed_body_is_of_the_same_version(scripted: Scripted, client: str) -> None:
    """Broken off in the old version, the server has the new one: never half of each."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        first = len(scripted.requests) == 1
        asked = handler.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        answer(
            206 if asked else 200,
            OBJECT[start : start + 4] if first else OBJECT[start:],
            **({"Content_Range": f"bytes {start}-9/10"} if asked else {}),
            Content_Length=str(10 - start),
            ETag='"v1"' if first else '"v2"',
        )(handler)

    scripted.respond = respond
    storage = storage_at(scripted.url, client)
    with pytest.raises(Stale):
        read(storage, "a", 0, 10)
    assert len(scripted.requests) == 2
    storage.close()


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("NoSuchBucket", 404, UnderStorageError),
        ("NoSuchKey", 404, NotFound),
        ("ExpiredToken", 400, PermissionError),
        ("AccessDenied", 403, PermissionError),
        ("InternalError", 500, UnderStorageError),
    ],
)
def test_error_codes(scripted: Scripted, client: str, code: str, status: int, kind: type[OSError]) -> None:
    scripted.respond = answer(status, f"<Error><Code>{code}</Code><Message>words</Message></Error>".encode())
    storage = storage_at(scripted.url, client, attempts=1)
    with pytest.raises(kind) as caught:
        storage.read_range("a", 0, 3)
    assert type(caught.value) is kind
    storage.close()


def listing(keys: list[str], *, truncated: bool, token: str = "") -> Respond:
    contents = "".join(f"<Contents><Key>{key}</Key><Size>1</Size><ETag>e</ETag></Contents>" for key in keys)
    next_token = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    body = (
        '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{next_token}{contents}</ListBucketResult>"
    )
    return answer(200, body.encode(), Content_Type="application/xml")


@pytest.mark.parametrize("token", ["", "same"])
def test_a_truncated_listing_without_a_new_token_is_an_error(scripted: Scripted, token: str) -> None:
    scripted.respond = listing(["a"], truncated=True, token=token)
    storage = storage_at(scripted.url)
    with pytest.raises(UnderStorageError, match="cut short"):
        list(storage.list(""))
    storage.close()


def test_keys_that_no_path_can_name_are_not_shown(scripted: Scripted) -> None:
    scripted.respond = listing(["d/", "d/.", "d/..", "d/good", "d//"], truncated=False)
    storage = storage_at(scripted.url)
    assert [info.path for page in storage.list("d") for info in page] == ["d/good"]
    storage.close()
