"""fsspec's http:// against real servers, good ones and bad ones."""

from __future__ import annotations

import gc
import itertools
import os
import re
import threading
import time
import tracemalloc
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from forebay.config import KIB, MIB
from forebay.errors import NotFound, Stale, UnderStorageError
from forebay.ufs import UnderStorage, open_storage
from tests._web import Answer, Handler, WebServer
from tests.integration._web_site import DATA, make_site, plain_server, ranged_server

START_TIMEOUT_S = 20.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_site(tmp_path / "web")


@pytest.fixture
def web(folder: Path) -> Iterator[WebServer]:
    with WebServer(folder) as server:
        yield server


@pytest.fixture
def storage(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnderStorage]:
    monkeypatch.setattr("forebay.ufs._fsspec_http.delay_s", lambda attempt: 0.0)
    opened = open_storage(web.url, {"attempts": 3})
    yield opened
    opened.close()


def read(storage: UnderStorage, path: str, offset: int, length: int, version: str | None = None) -> bytes:
    with storage.read_range(path, offset, length, version) as body:
        buffer = bytearray(body.length)
        body.readinto(memoryview(buffer))
    return bytes(buffer)


@pytest.fixture
def plain_url(folder: Path) -> Iterator[str]:
    with plain_server(folder) as url:
        yield url


def test_a_server_that_ignores_ranges_is_found_out(plain_url: str) -> None:
    storage = open_storage(plain_url, {})
    assert {info.path: info.size for page in storage.walk("") for info in page} == {
        "big": len(DATA),
        "sub/a b+ü.txt": 5,
        "sub/deep/empty": 0,
    }
    assert re.fullmatch(rf"\d+-{len(DATA)}", storage.stat("big").version)
    # The whole object is what was asked for, and what comes.
    assert read(storage, "big", 0, len(DATA)) == DATA
    assert read(storage, "big", 0, MIB) == DATA
    assert read(storage, "big", len(DATA), 10) == b""
    for offset, length in ((0, 10), (1, len(DATA)), (len(DATA) - 1, 1)):
        with pytest.raises(UnderStorageError, match="the server ignores ranges"):
            storage.read_range("big", offset, length)
    storage.close()


def test_a_server_with_ranges(folder: Path) -> None:
    with ranged_server(folder) as url:
        storage = open_storage(url, {})
        walked = {info.path: info for page in storage.walk("") for info in page}
        assert walked.keys() == {"big", "sub/a b+ü.txt", "sub/deep/empty"}
        assert walked["big"] == storage.stat("big")
        assert storage.stat("sub/deep").is_dir
        version = walked["big"].version
        for offset, length in ((0, 10), (1, len(DATA)), (len(DATA) - 1, 1), (100_000, 100_000)):
            assert read(storage, "big", offset, length, version) == DATA[offset : offset + length]
        assert read(storage, "big", len(DATA), 1) == b""
        assert read(storage, "sub/deep/empty", 0, 1) == b""
        (folder / "big").write_bytes(DATA)
        with pytest.raises(Stale):
            storage.read_range("big", 0, 10, version)
        storage.close()


def without_if_match(handler: Handler) -> bool:
    del handler.headers["If-Match"]
    return False


def test_if_match_is_sent_and_a_change_is_stale(storage: UnderStorage, web: WebServer, folder: Path) -> None:
    version = storage.stat("big").version
    assert read(storage, "big", 5, 10, version) == DATA[5:15]
    (folder / "big").write_bytes(DATA)
    with pytest.raises(Stale, match="big"):
        storage.read_range("big", 5, 10, version)
    # Now as of a server that does not look at If-Match.
    web.script.append(without_if_match)
    with pytest.raises(Stale):
        storage.read_range("big", 5, 10, version)


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.reply(code, b"words of the server", **headers)


@pytest.mark.parametrize("code", [500, 502, 503, 429])
def test_a_burst_of_failures_is_lived_through(storage: UnderStorage, web: WebServer, code: int) -> None:
    web.script.extend([status(code)] * 2)
    assert storage.stat("big").size == len(DATA)
    web.script.extend([status(code)] * 2)
    assert read(storage, "big", 0, 100) == DATA[:100]
    web.script.extend([status(code)] * 2)
    assert len(list(storage.list("sub"))) == 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (401, PermissionError),
        (403, PermissionError),
        (404, NotFound),
        (410, NotFound),
        (503, UnderStorageError),
        (504, TimeoutError),
        (418, UnderStorageError),
    ],
)
def test_each_failure_has_its_error(
    storage: UnderStorage, web: WebServer, code: int, kind: type[Exception]
) -> None:
    for attempt in (
        lambda: storage.stat("big"),
        lambda: list(storage.list("sub")),
        lambda: storage.read_range("big", 0, 10),
    ):
        web.script.extend([status(code)] * 3)
        with pytest.raises(kind, match=f"{code}.*{web.url}/"):
            attempt()
        web.script.clear()
    assert storage.stat("big").size == len(DATA)


def test_a_silent_server_times_out(web: WebServer) -> None:
    impatient = open_storage(web.url, {"attempts": 3, "timeout_s": 1})
    given_up = threading.Event()
    web.script.extend([lambda handler: given_up.wait(60)] * 3)
    try:
        with pytest.raises(TimeoutError, match="/big"):
            impatient.stat("big")
    finally:
        given_up.set()
        impatient.close()


def test_a_trickling_server_does_not_hold_a_reader_for_ever(
    storage: UnderStorage, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes in time, all of them together do not."""
    monkeypatch.setattr("forebay.ufs._fsspec_http.HttpStorage.deadline_s", lambda self, body_bytes: 0.3)
    given_up = threading.Event()

    def trickle(handler: Handler) -> None:
        handler.send_response(HTTPStatus.PARTIAL_CONTENT)
        handler.send_header("Content-Range", f"bytes 0-999/{len(DATA)}")
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        while not given_up.wait(0.05):
            handler.wfile.write(b"x")

    web.script.append(trickle)
    try:
        with pytest.raises(TimeoutError, match="/big"):
            read(storage, "big", 0, 1_000)
    finally:
        given_up.set()


def test_a_server_that_is_not_there(storage: UnderStorage) -> None:
    nobody = open_storage("http://127.0.0.1:1/x", {"attempts": 1})
    with pytest.raises(UnderStorageError, match=r"127\.0\.0\.1:1/x/a") as raised:
        nobody.stat("a")
    assert raised.value.errno == 111
    nobody.close()


def broken_off(at: int) -> Answer:
    """Answer a range rightly, but only so many bytes of it."""

    def answer(handler: Handler) -> None:
        first, last = (int(text) for text in handler.headers["Range"].removeprefix("bytes=").split("-"))
        place = Path(handler.translate_path(handler.path))
        data, found = place.read_bytes(), place.stat()
        last = min(last, len(data) - 1)
        handler.send_response(HTTPStatus.PARTIAL_CONTENT)
        handler.send_header("ETag", f'"{found.st_mtime_ns:x}.{found.st_ino:x}.{found.st_size:x}"')
        handler.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        handler.send_header("Content-Length", str(last - first + 1))
        handler.end_headers()
        handler.wfile.write(data[first : min(first + at, last + 1)])
        handler.hang_up()

    return answer


@pytest.mark.parametrize("at", [0, 1, 2 * MIB])
def test_a_broken_body_is_resumed(storage: UnderStorage, web: WebServer, folder: Path, at: int) -> None:
    data = os.urandom(7 * MIB + 3)
    (folder / "long").write_bytes(data)
    web.script.extend([broken_off(at)] * 2)
    assert read(storage, "long", 3, len(data) - 3) == data[3:]
    starts = [int(str(asked).removeprefix("bytes=").partition("-")[0]) for _, _, asked in web.requests]
    assert (len(starts), starts[0]) == (3, 3)
    # Of what came just before the end some may be lost in aiohttp's buffer; it is asked for again.
    assert all(at - MIB <= later - former <= at for former, later in itertools.pairwise(starts))
    web.script.extend([broken_off(at)] * 3)
    with pytest.raises(UnderStorageError, match="/long"):
        read(storage, "long", 0, len(data))


def test_a_body_is_not_resumed_with_another_version(
    storage: UnderStorage, web: WebServer, folder: Path
) -> None:
    web.script.append(broken_off(1_000))
    with storage.read_range("big", 0, len(DATA)) as body:
        (folder / "big").write_bytes(DATA[::-1])
        with pytest.raises(Stale):
            body.readinto(memoryview(bytearray(body.length)))


def test_many_readers_of_a_changing_file_get_one_version_each(web: WebServer, folder: Path) -> None:
    storage = open_storage(web.url, {})
    size = 200 * KIB
    stop = threading.Event()
    found: list[tuple[int, bytes]] = []

    def write() -> None:
        for number in itertools.count():
            (folder / "new").write_bytes(bytes([number % 256]) * size)
            (folder / "new").replace(folder / "changing")
            if stop.wait(0.001):
                return

    def read_on() -> None:
        for number in range(40):
            # In two requests, as the cache reads two blocks of one version.
            half = size // 2 + number
            try:
                with storage.read_range("changing", 0, half) as body:
                    buffer = bytearray(body.length)
                    body.readinto(memoryview(buffer))
                    found.append(
                        (size, bytes(buffer) + read(storage, "changing", half, size, body.info.version))
                    )
            except Stale:
                found.append((0, b""))

    (folder / "changing").write_bytes(b"x" * size)
    writer = threading.Thread(target=write)
    readers = [threading.Thread(target=read_on) for _ in range(4)]
    for thread in (writer, *readers):
        thread.start()
    for thread in readers:
        thread.join()
    stop.set()
    writer.join()
    storage.close()
    assert len(found) == 160
    assert all(len(data) == length and len(set(data)) <= 1 for length, data in found)


@pytest.mark.parametrize(
    ("code", "body", "headers"),
    [
        (206, b"0123456789", {}),
        (206, b"0123456789", {"Content_Range": "bytes 0-9/100"}),
        (206, b"0123456789", {"Content_Range": "bytes 5-14/*"}),
        (206, b"01234", {"Content_Range": "bytes 5-14/100"}),
        (206, b"0123456789", {"Content_Range": "bytes 5-14/100", "Content_Encoding": "gzip"}),
        (206, b"0123456789", {"Content_Range": "nonsense"}),
        (200, b"0123456789", {}),
        (200, b"", {"Transfer_Encoding": "chunked"}),
        (204, b"", {}),
        (203, b"0123456789", {}),
    ],
)
def test_an_answer_that_is_not_the_range_is_refused(
    storage: UnderStorage, web: WebServer, code: int, body: bytes, headers: dict[str, str]
) -> None:
    def answer(handler: Handler) -> None:
        handler.reply(code, body, **headers)
        handler.hang_up()

    web.script.append(answer)
    with pytest.raises(UnderStorageError, match=r"asked for bytes 5-14.*/big"):
        storage.read_range("big", 5, 10)


def test_a_giant_answer_takes_no_memory(storage: UnderStorage, web: WebServer) -> None:
    """5 TiB in place of a range: refused by its head, without the body."""
    web.script.append(lambda handler: handler.reply(200, b"x" * MIB, Content_Length=str(5 << 40)))
    tracemalloc.start()
    with pytest.raises(UnderStorageError, match="ignores ranges"):
        storage.read_range("big", 5, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MIB


@pytest.mark.parametrize("code", [405, 501])
def test_a_server_without_head_is_asked_for_a_byte(storage: UnderStorage, web: WebServer, code: int) -> None:
    expected = storage.stat("big")
    web.script.append(status(code))
    assert storage.stat("big") == expected
    assert web.requests[-1] == ("GET", "/big", "bytes=0-0")


def test_a_file_of_unknown_size_is_an_error(storage: UnderStorage, web: WebServer) -> None:
    web.script.extend([lambda handler: handler.reply(200, Transfer_Encoding="chunked")] * 2)
    with pytest.raises(UnderStorageError, match="does not tell the size"):
        storage.stat("big")


def test_a_server_that_redirects_no_directory_is_asked_with_a_slash(
    storage: UnderStorage, web: WebServer
) -> None:
    web.script.append(status(404))
    assert storage.stat("sub").is_dir
    assert [path for _, path, _ in web.requests] == ["/sub", "/sub/"]
    for code, kind in ((404, NotFound), (403, NotFound), (500, UnderStorageError)):
        web.script.extend([status(404), status(code)] * 3)
        with pytest.raises(kind, match="/sub"):
            storage.stat("sub")
        web.script.clear()


def test_a_folder_without_an_index_page_is_an_error_not_empty(storage: UnderStorage, web: WebServer) -> None:
    web.script.append(lambda handler: handler.reply(200, b"{}", Content_Type="application/json"))
    with pytest.raises(UnderStorageError, match="no index page"):
        list(storage.list("sub"))


def test_a_link_to_nothing_is_left_out_of_a_listing(storage: UnderStorage, folder: Path) -> None:
    (folder / "sub/broken").symlink_to("nowhere")
    names = {info.path for page in storage.list("sub") for info in page}
    assert names == {"sub/a b+ü.txt", "sub/deep"}


def test_a_file_that_cannot_be_asked_about_fails_the_listing(storage: UnderStorage, web: WebServer) -> None:
    web.script.extend([lambda handler: False, status(403)])
    with pytest.raises(PermissionError, match="sub/a b"):
        list(storage.list("sub"))


def test_connections_are_kept(storage: UnderStorage, web: WebServer) -> None:
    for _ in range(10):
        read(storage, "big", 0, 1_000)
        storage.stat("big")
    assert web.connection_count <= 2


def test_nothing_is_left_open(web: WebServer) -> None:
    """Descriptors, after bodies were given up in the middle."""
    warm = open_storage(web.url, {})
    warm.stat("big")
    warm.close()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        storage = open_storage(web.url, {})
        with storage.read_range("big", 0, len(DATA)):
            pass
        storage.close()
    gc.collect()
    deadline = time.monotonic() + START_TIMEOUT_S
    # The server's side closes when it notices.
    while len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
