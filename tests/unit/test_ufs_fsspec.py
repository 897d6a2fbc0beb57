"""The adapter over fsspec, with file systems made for it: what they may get wrong, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from forebay.errors import Closed, NotFound, Stale, UnderStorageError
from forebay.ufs import UnderStorage, open_storage
from forebay.ufs._fsspec_errors import delay_s, is_transient, raise_translated, scrubbed
from forebay.ufs._fsspec_info import described, time_ns

WAIT_S = 10.0
INFO = {"name": "root/a", "size": 5, "type": "file", "etag": "one"}


class Scripted(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Answers from class attributes, which a test sets; an exception among them is raised."""

    protocol = "scripted"
    infos: ClassVar[dict[str, Any]] = {}
    listings: ClassVar[dict[str, Any]] = {}
    bodies: ClassVar[list[Any]] = []
    calls: ClassVar[list[str]] = []
    made: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        type(self).made.append(options)

    def info(self, path: str, **_: Any) -> Any:
        return self._answer("info", self.infos.get(path))

    def ls(self, path: str, detail: bool = False, **_: Any) -> Any:
        """Give names alone unless asked for more, as sftp:// does."""
        entries = self._answer("ls", self.listings.get(path))
        return entries if detail else [entry["name"] for entry in entries]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> Any:
        body = self.bodies.pop(0) if self.bodies else b"12345"[start:end]
        return self._answer("cat_file", body)

    def _answer(self, operation: str, answer: Any) -> Any:
        self.calls.append(operation)
        if isinstance(answer, list) and answer and isinstance(answer[0], Exception):
            answer = answer.pop(0)
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            raise FileNotFoundError("nothing there")
        return answer


@pytest.fixture
def system() -> type[Scripted]:
    """A fresh file system under scripted://, whose root is there."""

    class System(Scripted):
        infos: ClassVar[dict[str, Any]] = {"root": {"name": "root", "size": 0, "type": "directory"}}
        listings: ClassVar[dict[str, Any]] = {}
        bodies: ClassVar[list[Any]] = []
        calls: ClassVar[list[str]] = []
        made: ClassVar[list[dict[str, Any]]] = []

    fsspec.register_implementation("scripted", System, clobber=True)
    return System


@pytest.fixture
def storage(system: type[Scripted], monkeypatch: pytest.MonkeyPatch) -> UnderStorage:
    monkeypatch.setattr("forebay.ufs.fsspec.delay_s", lambda attempt: 0.0)
    return open_storage("scripted://root", {"attempts": 3})


def read(storage: UnderStorage, path: str, offset: int, length: int, version: str | None = None) -> bytes:
    with storage.read_range(path, offset, length, version) as body:
        buffer = bytearray(body.length)
        body.readinto(memoryview(buffer))
    return bytes(buffer)


def test_a_range_of_another_length_is_refused(storage: UnderStorage, system: type[Scripted]) -> None:
    system.infos["root/a"] = INFO
    for body in (b"123456", b"", b"1234"):
        system.bodies[:] = [body]
        with pytest.raises(UnderStorageError, match=rf"asked for bytes 0-4, got {len(body)} bytes"):
            read(storage, "a", 0, 5)
    assert read(storage, "a", 1, 100) == b"2345"


def test_the_version_is_looked_at_again_after_the_read(storage: UnderStorage, system: type[Scripted]) -> None:
    versions = iter(["one", "two"])
    system.infos["root/a"] = lambda: INFO | {"etag": next(versions)}
    with pytest.raises(Stale, match="expected version 'one', found 'two'"):
        read(storage, "a", 0, 5)


def test_a_short_range_of_a_changed_object_is_stale(storage: UnderStorage, system: type[Scripted]) -> None:
    sizes = iter([5, 3])
    system.infos["root/a"] = lambda: INFO | {"etag": "", "size": next(sizes)}
    system.bodies[:] = [b"123"]
    with pytest.raises(Stale, match=r"untracked-5.*untracked-3"):
        read(storage, "a", 0, 5)


def test_a_long_range_comes_in_steps(
    storage: UnderStorage, system: type[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.ufs.fsspec._STEP_BYTES", 2)
    system.infos["root/a"] = INFO
    signs: list[int] = []
    with storage.read_range("a", 0, 5) as body:
        buffer = bytearray(5)
        body.readinto(memoryview(buffer), lambda: signs.append(1))
    assert (bytes(buffer), len(signs), system.calls.count("cat_file")) == (b"12345", 3, 3)


def test_what_may_pass_is_tried_again(storage: UnderStorage, system: type[Scripted]) -> None:
    system.infos["root/a"] = [ConnectionResetError(), TimeoutError("slow"), FileNotFoundError("gone")]
    with pytest.raises(NotFound, match="gone"):
        storage.stat("a")
    # Three for the file, one for the root.
    assert system.calls.count("info") == 4
    system.infos["root/a"] = [TimeoutError("slow")] * 3
    with pytest.raises(TimeoutError, match="slow"):
        storage.stat("a")


def test_what_will_not_pass_is_not_tried_again(storage: UnderStorage, system: type[Scripted]) -> None:
    system.infos["root/a"] = PermissionError("no")
    with pytest.raises(PermissionError, match=r"no.*scripted://root/a"):
        storage.stat("a")
    assert system.calls == ["info"]


def test_an_absent_root_is_not_an_absent_file(storage: UnderStorage, system: type[Scripted]) -> None:
    with pytest.raises(NotFound):
        storage.stat("a")
    del system.infos["root"]
    with pytest.raises(UnderStorageError, match="attached folder or bucket is not there"):
        storage.stat("a")
    with pytest.raises(NotFound):
        storage.stat("")
    system.infos["root"] = PermissionError("not yours")
    with pytest.raises(PermissionError):
        storage.stat("a")


def test_a_listing_is_cleaned(storage: UnderStorage, system: type[Scripted]) -> None:
    system.infos["root/d/link"] = INFO
    system.infos["root/d/unsized"] = INFO | {"size": 7}
    system.listings["root/d"] = [
        {"name": "root/d", "type": "directory", "size": 0},
        {"name": "root/d/sub/", "type": "directory", "size": 0},
        {"name": "root/d/a", "type": "file", "size": 1, "mtime": 5.0},
        {"name": "root/d/link", "type": "link", "size": 11},
        {"name": "root/d/broken", "type": "link", "size": 11},
        {"name": "root/d/unsized", "type": "file", "size": None},
        {"name": "root/d/socket", "type": "other", "size": 0},
        {"name": "root/d/..", "type": "directory", "size": 0},
        {"name": "root/d/\0", "type": "file", "size": 0},
    ]
    found = {info.path: (info.size, info.is_dir) for page in storage.list("d") for info in page}
    assert found == {
        "d/sub": (0, True),
        "d/a": (1, False),
        "d/link": (5, False),
        "d/unsized": (7, False),
    }


def test_a_walk_does_not_go_round_in_circles(storage: UnderStorage, system: type[Scripted]) -> None:
    system.infos["root/d/up"] = system.infos["root"]
    system.infos["root/d/link"] = INFO
    system.listings["root"] = [{"name": "root/d", "type": "directory", "size": 0}]
    system.listings["root/d"] = [
        {"name": "root/d/up", "type": "link", "size": 2},
        {"name": "root/d/link", "type": "link", "size": 2},
        {"name": "root/d/vanished", "type": "directory", "size": 0},
    ]
    assert [info.path for page in storage.walk("") for info in page] == ["d/link"]
    shown = {info.path: info.is_dir for page in storage.list("d") for info in page}
    assert shown == {"d/up": True, "d/link": False, "d/vanished": True}
    with pytest.raises(NotFound, match="root/x"):
        list(storage.walk("x"))


def test_a_file_is_not_a_directory(storage: UnderStorage, system: type[Scripted]) -> None:
    system.listings["root/a"] = [INFO]
    with pytest.raises(NotFound, match="is not a directory"):
        list(storage.list("a"))
    system.listings["root/marker"] = [{"name": "root/marker/", "type": "directory", "size": 0}]
    assert list(storage.list("marker")) == [[]]


def test_a_directory_is_not_read(storage: UnderStorage) -> None:
    with pytest.raises(IsADirectoryError):
        storage.read_range("", 0, 1)


@pytest.mark.parametrize("size", [None, -1, "5", True])
def test_a_size_that_is_none_is_an_error(storage: UnderStorage, system: type[Scripted], size: object) -> None:
    system.infos["root/a"] = INFO | {"size": size}
    with pytest.raises(UnderStorageError, match="known size"):
        storage.stat("a")


def test_ukey_stands_in_where_there_is_nothing_else(storage: UnderStorage, system: type[Scripted]) -> None:
    system.infos["root/a"] = {"name": "root/a", "size": 5, "type": "file"}
    assert storage.stat("a").version == "untracked-5"

    class Keyed(system):  # type: ignore[misc, valid-type]  # a class of this test
        def ukey(self, path: str) -> str:
            return f"key of {path}"

    fsspec.register_implementation("scripted", Keyed, clobber=True)
    keyed = open_storage("scripted://root", {})
    assert keyed.stat("a").version == "key of root/a"
    system.infos["root/a"]["mtime"] = 3
    assert keyed.stat("a").version == "3000000000-5"


def test_file_systems_are_made_anew_and_lent_to_one_thread_at_a_time(
    storage: UnderStorage, system: type[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.ufs.fsspec._INSTANCES_MAX", 2)
    at_work = threading.Semaphore(0)
    go_on = threading.Event()

    def slow() -> Any:
        at_work.release()
        assert go_on.wait(WAIT_S)
        return INFO

    system.infos["root/a"] = slow
    threads = [threading.Thread(target=storage.stat, args=("a",)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        assert at_work.acquire(timeout=WAIT_S)
    assert system.calls.count("info") == 2
    go_on.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert (system.calls.count("info"), len(system.made)) == (6, 2)
    storage.close()
    storage.close()
    with pytest.raises(Closed, match="closed meanwhile"):
        storage.stat("a")
    assert len(system.made) == 2


def test_a_file_system_that_broke_off_is_not_used_again(
    storage: UnderStorage, system: type[Scripted]
) -> None:
    system.infos["root/a"] = [EOFError(), OSError("Socket is closed"), FileNotFoundError("gone")]
    with pytest.raises(NotFound, match="gone"):
        storage.stat("a")
    # The third says that the file is not there, and then that the root is.
    assert len(system.made) == 3


def test_an_answer_in_time_is_asked_for(system: type[Scripted]) -> None:
    class Slow(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
        protocol = "slow"

        async def _info(self, path: str, **_: Any) -> Any:
            await asyncio.Event().wait()

    fsspec.register_implementation("slow", Slow, clobber=True)
    storage = open_storage("slow://root", {"timeout_s": 1, "attempts": 1})
    with pytest.raises(TimeoutError, match="slow://root/a"):
        storage.stat("a")


@pytest.mark.parametrize(
    ("raw", "version", "mtime_ns"),
    [
        ({"ETag": '"abc"', "mtime": 1.5}, "abc", 1_500_000_000),
        ({"etag": 'W/"abc"'}, "W/abc", 0),
        ({"generation": 17, "updated": "1970-01-01T00:00:02.000Z"}, "17", 2_000_000_000),
        ({"content_md5": b"\x01\xff"}, "01ff", 0),
        ({"etag": None, "checksum": "", "mtime": 1}, "1000000000-5", 1_000_000_000),
        ({"LastModified": datetime(1970, 1, 1, 0, 0, 1, 5, UTC)}, "1000005000-5", 1_000_005_000),
        ({"mtime": datetime(1970, 1, 1, 0, 0, 1)}, "1000000000-5", 1_000_000_000),
        ({"last_modified": "Thu, 01 Jan 1970 00:00:03 GMT"}, "3000000000-5", 3_000_000_000),
        ({"modify": "19700101000004.123"}, "4000000000-5", 4_000_000_000),
        ({"modificationTime": 1_700_000_000_123}, "1700000000123000000-5", 1_700_000_000_123_000_000),
        ({"created": 7.000001}, "7000001000-5", 7_000_001_000),
        ({"mtime": "yesterday"}, "untracked-5", 0),
        ({"mtime": float("nan")}, "untracked-5", 0),
        ({"mtime": -1}, "untracked-5", 0),
        ({}, "untracked-5", 0),
    ],
)
def test_a_version_is_made_of_the_best_there_is(raw: dict[str, Any], version: str, mtime_ns: int) -> None:
    info = described("a", {"type": "file", "size": 5, **raw})
    assert info is not None
    assert (info.version, info.mtime_ns) == (version, mtime_ns)


def test_a_time_is_the_same_in_a_listing_and_in_a_description() -> None:
    moment = datetime(2026, 11, 22, 8, 0, 1, 123_457, timezone(timedelta(hours=2)))
    assert time_ns(moment) == time_ns(moment.timestamp()) == time_ns(moment.isoformat())
    assert time_ns(moment) % 1_000_000_000 == 123_457_000


class StatusError(Exception):
    """As the libraries of HTTP storages have them."""

    def __init__(self, status: int, text: str = "as it is") -> None:
        super().__init__(text)
        self.status_code = status


class ReadTimeout(Exception):  # noqa: N818  (as requests names it)
    """A time-out that is not the built-in one."""


class RefreshError(Exception):
    """As google-auth names it."""


@pytest.mark.parametrize(
    ("error", "kind", "transient"),
    [
        (FileNotFoundError("x"), NotFound, False),
        (NotADirectoryError("x"), NotFound, False),
        (StatusError(404), NotFound, False),
        (StatusError(410), NotFound, False),
        (StatusError(401), PermissionError, False),
        (StatusError(403), PermissionError, False),
        (RefreshError("x"), PermissionError, False),
        (PermissionError("x"), PermissionError, False),
        (StatusError(408), TimeoutError, True),
        (StatusError(504), TimeoutError, True),
        (TimeoutError(), TimeoutError, True),
        (ReadTimeout("x"), TimeoutError, True),
        (StatusError(429), UnderStorageError, True),
        (StatusError(503), UnderStorageError, True),
        (StatusError(500), UnderStorageError, True),
        (ConnectionRefusedError(111, "refused"), UnderStorageError, True),
        (EOFError(), UnderStorageError, True),
        (OSError("Socket is closed"), UnderStorageError, True),
        (IsADirectoryError(21, "x"), IsADirectoryError, False),
        (OSError(28, "full"), UnderStorageError, False),
        (ValueError("x"), UnderStorageError, False),
        (KeyError("x"), UnderStorageError, False),
    ],
)
def test_errors_become_ours(error: Exception, kind: type[OSError], transient: bool) -> None:
    with pytest.raises(kind, match="gs://bucket/a") as raised:
        raise_translated(error, "gs://bucket/a")
    assert raised.value.__cause__ is error
    assert is_transient(error) == transient


def test_an_errno_is_kept() -> None:
    with pytest.raises(UnderStorageError) as raised:
        raise_translated(OSError(28, "full"), "x")
    assert raised.value.errno == 28


def test_waits_grow_up_to_a_limit() -> None:
    assert all(0 <= delay_s(attempt) <= 5 for attempt in range(1, 40))
    assert max(delay_s(1) for _ in range(100)) <= 0.2


@pytest.mark.parametrize(
    "text",
    [
        "GET https://x.blob/a?sv=2&sig=SECRET&se=3",
        "https://bucket/a?X-Amz-Signature=SECRET",
        "{'token': 'SECRET', 'a': 1}",
        'Authorization: Bearer SECRET, "b"',
        "AccountKey=SECRET;EndpointSuffix=x",
        "password = SECRET",
        "client_secret:SECRET",
        "connecting to ftp://user:SECRET@host/a",
    ],
)
def test_a_secret_in_a_librarys_words_is_in_none_of_ours(text: str) -> None:
    assert "SECRET" not in scrubbed(text)
    outer = ValueError("harmless")
    outer.__cause__ = OSError(text)
    for error in (OSError(text), outer):
        with pytest.raises(UnderStorageError) as raised:
            raise_translated(error, "gs://bucket/a")
        assert raised.value.__cause__ is None
        assert "SECRET" not in str(raised.value)


def test_ordinary_words_are_kept() -> None:
    text = "HTTP 503 for https://host:80/a/b?page=2: slow down (request 17)"
    assert scrubbed(text) == text
