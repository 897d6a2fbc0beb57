"""obstore and boto3 on one bucket: who is asked for what, with whose credentials, and with what in common."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import ConfigError, NotFound, Stale, UnderStorageError
from forebay.ufs import ObjectInfo, _s3_obstore
from forebay.ufs.s3 import S3Storage
from tests._s3 import FakeS3, Handler, etag_of, give_keys

DATA = bytes(range(256)) * 1024


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    give_keys(monkeypatch)
    with FakeS3() as server:
        server.objects["a"] = DATA
        yield server


@pytest.fixture
def storage(server: FakeS3) -> Iterator[S3Storage]:
    storage = storage_at(server)
    yield storage
    storage.close()


def storage_at(server: FakeS3, **options: Any) -> S3Storage:
    return S3Storage("s3://bucket", {"endpoint_url": server.url, "attempts": 2, **options})


def read(
    storage: S3Storage, path: str = "a", offset: int = 0, length: int = len(DATA), version: str | None = None
) -> bytes:
    with storage.read_range(path, offset, length, version) as body:
        buffer = bytearray(body.length)
        body.readinto(memoryview(buffer))
    return bytes(buffer)


def test_after_the_first_range_obstore_reads_where_ranges_are_answered_with_206(
    server: FakeS3, storage: S3Storage
) -> None:
    for offset in range(0, 1_000, 100):
        assert read(storage, offset=offset, length=100) == DATA[offset : offset + 100]
    assert [request.by_obstore for request in server.gets()] == [False] + [True] * 9
    assert server.gets()[-1].range == "bytes=900-999"


def test_where_ranges_are_answered_with_200_obstore_reads_whole_objects_and_nothing_is_asked_twice(
    server: FakeS3, storage: S3Storage
) -> None:
    server.partial_status = 200
    for _ in range(5):
        assert read(storage) == DATA
    for offset in (1_000, 2_000):
        assert read(storage, offset=offset, length=100) == DATA[offset : offset + 100]
    assert [(request.by_obstore, request.range is None) for request in server.gets()] == [
        (False, False),
        *[(True, True)] * 4,
        *[(False, False)] * 2,
    ]


def test_a_server_that_changes_its_mind_costs_one_request(server: FakeS3, storage: S3Storage) -> None:
    read(storage, length=10)
    server.partial_status = 200
    for offset in (10, 20, 30):
        assert read(storage, offset=offset, length=10) == DATA[offset : offset + 10]
    assert [request.by_obstore for request in server.gets()] == [False, True, False, False, False]


def test_what_was_learnt_holds_for_all_datasets_on_a_server(server: FakeS3) -> None:
    first, second = storage_at(server), storage_at(server)
    read(first, length=10)
    read(second, length=10)
    assert [request.by_obstore for request in server.gets()] == [False, True]
    first.close()
    second.close()


def test_both_clients_describe_an_object_alike(server: FakeS3, storage: S3Storage) -> None:
    server.objects["empty"] = b""
    for path in ("a", "empty"):
        bodies = [storage.read_range(path, 0, 10) for _ in range(2)]
        (listed,) = [info for page in storage.list("") for info in page if info.path == path]
        assert bodies[0].info == bodies[1].info == storage.stat(path) == listed
        assert listed.version == etag_of(server.objects[path])
        for body in bodies:
            body.close()


def test_without_etags_size_and_time_are_the_version_and_nothing_is_asked_to_match(
    server: FakeS3, storage: S3Storage
) -> None:
    def without_etag(handler: Handler) -> None:
        headers = {"Last_Modified": "Tue, 14 Nov 2023 22:13:20 GMT", "Content_Range": "bytes 0-2/9"}
        handler.reply(206, b"abc", **headers)

    server.interfere = without_etag
    infos: list[ObjectInfo] = []
    for _ in range(2):
        with storage.read_range("a", 0, 3, infos[0].version if infos else None) as body:
            infos.append(body.info)
    assert infos[0] == infos[1]
    assert infos[0].version == "mtime-1700000000-9"
    assert [request.by_obstore for request in server.gets()] == [False, True]
    assert all("If-Match" not in request.headers for request in server.gets())


@pytest.mark.parametrize("looks_at_if_match", [True, False])
def test_a_version_is_asked_for_and_looked_at_in_the_answer(
    server: FakeS3, storage: S3Storage, looks_at_if_match: bool
) -> None:
    def drop_if_match(handler: Handler) -> bool:
        del handler.headers["If-Match"]
        return False

    version = storage.stat("a").version
    if not looks_at_if_match:
        server.interfere = drop_if_match
    for partial_status in (206, 206, 200, 200, 200):
        server.partial_status = partial_status
        assert read(storage, version=version) == DATA
    server.objects["a"] = DATA[::-1]
    for partial_status in (206, 200):
        server.partial_status = partial_status
        with pytest.raises(Stale):
            read(storage, version=version)
    assert {request.by_obstore for request in server.gets()} == {True, False}
    assert all(request.headers["If-Match"] == f'"{version}"' for request in server.gets())


HOSTILE_KEYS = [
    "k" * 1024,
    "é" * 512,
    "new\nline",
    "tab\tand\x7f",
    "a+b %20c&d=e?f#g",
    "quotes'\"<>&amp;",
    "emoji😀/ü",
    "a/b",
    "...",
    "d/.hidden",
    " ",
    "*?[x]{y}\\",
]


def test_hostile_keys_are_listed_and_read_by_either_client(server: FakeS3, storage: S3Storage) -> None:
    server.objects.update({key: key.encode() for key in HOSTILE_KEYS})
    found = {info.path: info for page in storage.walk("") for info in page}
    assert found.keys() == {"a", *HOSTILE_KEYS}
    for _ in range(2):
        for key in HOSTILE_KEYS:
            assert read(storage, key, 0, 2_000, found[key].version) == key.encode()
            assert storage.stat(key) == found[key]
    assert {request.by_obstore for request in server.gets()} == {True, False}


def test_a_name_is_an_object_and_a_directory(server: FakeS3, storage: S3Storage) -> None:
    server.objects["a/b"] = b"below"
    assert [(info.path, info.is_dir) for page in storage.list("") for info in page] == [
        ("a", True),
        ("a", False),
    ]
    assert read(storage, "a") == DATA
    assert read(storage, "a/b", 0, 10) == b"below"
    assert {info.path for page in storage.walk("") for info in page} == {"a", "a/b"}


def refuse_obstore(handler: Handler) -> bool:
    """Answer obstore as a server in another region would."""
    if "object_store" not in handler.headers["User-Agent"]:
        return False
    handler.refuse(400, "AuthorizationHeaderMalformed", "the region is wrong")
    return True


def test_obstore_rests_where_only_boto3_succeeds(server: FakeS3, storage: S3Storage) -> None:
    read(storage, length=10)
    server.interfere = refuse_obstore
    for _ in range(10):
        assert read(storage, length=10) == DATA[:10]
    assert sum(request.by_obstore for request in server.gets()) == 3


def test_obstore_does_not_rest_for_what_boto3_cannot_do_either(server: FakeS3, storage: S3Storage) -> None:
    read(storage, length=10)
    server.interfere = lambda handler: handler.refuse(400, "BadRequest")
    for _ in range(5):
        with pytest.raises(UnderStorageError, match="BadRequest"):
            read(storage, length=10)
    server.interfere = None
    assert read(storage, length=10) == DATA[:10]
    assert server.gets()[-1].by_obstore


def test_boto3_alone_by_option(server: FakeS3) -> None:
    storage = storage_at(server, client="boto3")
    for _ in range(3):
        read(storage)
    assert not any(request.by_obstore for request in server.gets())
    storage.close()


@pytest.mark.parametrize("client", ["auto", "boto3"])
def test_anonymous_requests_are_not_signed(server: FakeS3, client: str) -> None:
    storage = storage_at(server, client=client, anonymous=True)
    for _ in range(3):
        assert read(storage) == DATA
    list(storage.list(""))
    assert len(server.requests) == 4
    assert all("Authorization" not in request.headers for request in server.requests)
    storage.close()


def test_requests_are_signed_with_boto3s_keys_by_both(server: FakeS3, storage: S3Storage) -> None:
    for _ in range(3):
        read(storage)
    assert {request.by_obstore for request in server.gets()} == {True, False}
    for request in server.gets():
        assert "Credential=key-for-a-test/" in request.headers["Authorization"]


def test_the_environment_does_not_make_obstore_anonymous(
    server: FakeS3, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    for _ in range(3):
        read(storage)
    assert all("Authorization" in request.headers for request in server.gets())


def test_expired_credentials_are_said_and_new_ones_found(
    server: FakeS3, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def expire(handler: Handler) -> bool:
        if "key-for-a-test/" not in handler.headers["Authorization"]:
            return False
        handler.refuse(400, "ExpiredToken", "The provided token has expired.")
        return True

    for _ in range(2):
        read(storage)
    server.interfere = expire
    attempts = (lambda: storage.stat("a"), lambda: read(storage), lambda: list(storage.list("")))
    for attempt in attempts:
        with pytest.raises(PermissionError, match=r"credentials have expired.*ExpiredToken"):
            attempt()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "new-key")
    for attempt in attempts:
        attempt()
    read(storage)
    assert server.gets()[-1].by_obstore


def test_obstore_asks_for_credentials_again(
    server: FakeS3, storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they expire: within half of the time for which boto3's are known to hold."""
    monkeypatch.setattr(_s3_obstore, "_CREDENTIALS_HOLD", timedelta(seconds=1))
    for _ in range(2):
        read(storage)
    credentials = storage.client().session.get_credentials()
    credentials.access_key = "renewed-key"
    deadline_s = time.monotonic() + 60
    while "Credential=renewed-key/" not in server.gets()[-1].headers["Authorization"]:
        assert time.monotonic() < deadline_s
        read(storage)
        assert server.gets()[-1].by_obstore


def test_a_secret_shows_nowhere(
    server: FakeS3, storage: S3Storage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "planted-token")
    caplog.set_level(logging.INFO)
    for _ in range(3):
        read(storage)
    server.interfere = lambda handler: handler.refuse(403, "SignatureDoesNotMatch")
    with pytest.raises(PermissionError) as caught:
        read(storage)
    fast = storage.fast_client()
    assert fast is not None
    shown = [repr(vars(storage)), repr(vars(fast)), str(fast._store.config), str(caught.value), caplog.text]
    cause = caught.value.__cause__
    shown += [repr(cause), str(cause)]
    assert not [text for text in shown if "planted" in text]
    for each in (storage, fast):
        with pytest.raises((AttributeError, TypeError, pickle.PicklingError)):
            pickle.dumps(each)


@pytest.mark.parametrize(
    ("code", "status", "kind", "words"),
    [
        ("NoSuchKey", 404, NotFound, "NoSuchKey"),
        ("NoSuchBucket", 404, UnderStorageError, "the bucket 'bucket' does not exist"),
        ("AccessDenied", 403, PermissionError, "AccessDenied: in words"),
    ],
)
def test_errors_are_the_same_by_either_client(
    server: FakeS3, storage: S3Storage, code: str, status: int, kind: type[OSError], words: str
) -> None:
    read(storage)
    server.interfere = lambda handler: handler.refuse(status, code)
    boto3_alone = storage_at(server, client="boto3")
    errors = []
    for each in (storage, boto3_alone):
        with pytest.raises(kind, match=words) as caught:
            read(each)
        errors.append((type(caught.value), str(caught.value)))
    assert errors[0] == errors[1]
    assert [request.by_obstore for request in server.gets()] == [False, True, False]
    boto3_alone.close()


def test_a_forked_child_of_a_process_that_used_obstore_reads_without_it(
    server: FakeS3, storage: S3Storage
) -> None:
    for _ in range(2):
        read(storage)
    assert server.gets()[-1].by_obstore
    pid = os.fork()
    if pid == 0:
        # No clean-up of the parent's things here, and no waiting for ever.
        signal.alarm(120)
        in_child = storage_at(server)
        done = not _s3_obstore.usable() and all(read(in_child) == DATA for _ in range(3))
        os._exit(0 if done else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert [request.by_obstore for request in server.gets()] == [False, True, False, False, False]
    assert _s3_obstore.usable()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"client": "obstor"}, "client: 'obstor'.*auto or boto3"),
        ({"requests_per_s": 0}, "requests_per_s"),
        ({"attempts": "many"}, "attempts"),
        ({"profile": "no-such-profile"}, "no-such-profile"),
        ({"secret_access_key": "planted"}, "by reference"),
    ],
)
def test_options_are_checked(server: FakeS3, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        storage_at(server, **options).stat("a")
    assert "planted" not in str(caught.value)
