"""Writes to S3 when answers are lost, servers ignore what they do not know, and others are at it as well."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from forebay.config import KIB
from forebay.errors import NotFound, Stale, UnderStorageError
from forebay.ufs import UnderStorage, _s3_exclusive, _s3_upload, _s3_writer, open_storage
from forebay.ufs.payload import BytesPayload
from forebay.ufs.writer import StorageWriter
from tests._job import Job, Watched
from tests._s3 import Handler, give_keys
from tests._s3_writes import Upload, WritableHandler, WritableS3

PART = 64 * KIB
LARGE = bytes(2 * PART + 5)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableS3]:
    give_keys(monkeypatch)
    for module in (_s3_exclusive, _s3_upload, _s3_writer):
        monkeypatch.setattr(module, "PART_BYTES", PART)
    with WritableS3() as server:
        yield server


@pytest.fixture
def storage(server: WritableS3) -> Iterator[UnderStorage]:
    storage = open_storage("s3://bucket/p", {"endpoint_url": server.url, "attempts": 2, "client": "boto3"})
    yield storage
    storage.close()


@pytest.fixture
def writer(storage: UnderStorage) -> StorageWriter:
    writer = storage.writer()
    assert writer is not None
    return writer


@pytest.fixture
def job() -> Job:
    return Job()


def strike(
    server: WritableS3, method: str, words: str, act: Callable[[WritableHandler], object], times: int = 1
) -> None:
    """Let the next requests of a method, with these words in their path, be answered so."""
    left = [times]

    def interfere(handler: Handler) -> object:
        if handler.command != method or words not in handler.path or not left[0]:
            return False
        left[0] -= 1
        assert isinstance(handler, WritableHandler)
        return act(handler)

    server.interfere = interfere


def put(writer: StorageWriter, data: bytes, job: Job, *, path: str = "a", exclusive: bool = False) -> None:
    writer.put(path, BytesPayload(data), job, exclusive=exclusive)


FAILURES: dict[str, Callable[[WritableHandler], object]] = {
    "500": lambda handler: handler.refuse(500, "InternalError"),
    "503": lambda handler: handler.refuse(503, "SlowDown"),
    "reset": WritableHandler.drop,
    "lost answer": WritableHandler.lose,
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(
    ("method", "words", "size"),
    [
        ("PUT", "/p/a", 100),
        ("POST", "uploads", len(LARGE)),
        ("PUT", "partNumber=2", len(LARGE)),
        ("POST", "uploadId", len(LARGE)),
    ],
)
def test_what_fails_is_tried_again(
    server: WritableS3, writer: StorageWriter, job: Job, failure: str, method: str, words: str, size: int
) -> None:
    strike(server, method, words, FAILURES[failure])
    put(writer, LARGE[:size], job)
    assert len(server.named(method, words)) >= 2
    assert (server.objects["p/a"], server.uploads, job.is_left) == (LARGE[:size], {}, False)


@pytest.mark.parametrize(("words", "size"), [("/p/a", 50_000), ("partNumber=2", len(LARGE))])
def test_what_breaks_off_in_the_middle_is_sent_again(
    server: WritableS3, writer: StorageWriter, job: Job, words: str, size: int
) -> None:
    server.cuts[words] = 1
    put(writer, LARGE[:size], job)
    assert (server.objects["p/a"], server.uploads, server.cuts[words]) == (LARGE[:size], {}, 0)
    server.cuts[words] = 100
    with pytest.raises(UnderStorageError):
        put(writer, b"x" * size, job)
    assert (server.objects["p/a"], server.uploads, job.is_left) == (LARGE[:size], {}, False)


@pytest.mark.parametrize("failure", ["500", "503", "reset"])
@pytest.mark.parametrize(
    ("method", "words", "size"),
    [("PUT", "/p/a", 100), ("PUT", "partNumber=2", len(LARGE)), ("POST", "uploadId", len(LARGE))],
)
def test_what_fails_for_good_is_given_up(
    server: WritableS3, writer: StorageWriter, job: Job, failure: str, method: str, words: str, size: int
) -> None:
    server.objects["p/a"] = b"old"
    strike(server, method, words, FAILURES[failure], times=100)
    with pytest.raises(UnderStorageError, match="/p/a"):
        put(writer, LARGE[:size], job)
    assert (server.objects, server.uploads, job.is_left) == ({"p/a": b"old"}, {}, False)


def test_an_upload_that_cannot_be_aborted_is_left_for_later(
    server: WritableS3, writer: StorageWriter, job: Job
) -> None:
    def interfere(handler: Handler) -> object:
        if handler.command == "DELETE" or "partNumber=2" in handler.path:
            handler.refuse(500, "InternalError")
            return True
        return False

    server.interfere = interfere
    with pytest.raises(UnderStorageError):
        put(writer, LARGE, job)
    assert (len(server.uploads), job.is_left) == (1, True)
    server.interfere = None
    writer.undo(job.facts)
    assert server.uploads == {}
    writer.undo(job.facts)


def test_an_upload_whose_begin_was_not_heard_of_is_aborted(
    server: WritableS3, writer: StorageWriter, job: Job
) -> None:
    server.uploads["of-another"] = Upload("p/a", "", 0.0)
    server.uploads["of-another-key"] = Upload("p/ab", "", 0.0)
    strike(server, "POST", "uploads", WritableHandler.lose)
    put(writer, LARGE, job)
    assert set(server.uploads) == {"of-another", "of-another-key"}


def test_undoing_what_was_killed_before_it_heard_of_its_upload(
    server: WritableS3, writer: StorageWriter, job: Job
) -> None:
    strike(server, "POST", "uploads", lambda handler: handler.refuse(403, "AccessDenied"))
    with pytest.raises(PermissionError):
        put(writer, LARGE, job)
    asked_s = job.facts["asked_s"]
    server.uploads = {
        "own": Upload("p/a", "", asked_s + 1),
        "much later": Upload("p/a", "", asked_s + 1_000),
        "of another key": Upload("p/a/b", "", asked_s + 1),
    }
    writer.undo(job.facts)
    assert set(server.uploads) == {"much later", "of another key"}


def test_uploads_that_are_not_listed_do_no_harm(server: WritableS3, writer: StorageWriter, job: Job) -> None:
    strike(server, "GET", "uploads", lambda handler: handler.refuse(403, "AccessDenied"), times=100)
    put(writer, LARGE, job)
    assert server.objects["p/a"] == LARGE
    server.uploads["of-another"] = Upload("p/a", "", 0.0)
    writer.undo(job.facts | {"upload": None})
    assert set(server.uploads) == {"of-another"}


def abort_first(handler: WritableHandler) -> object:
    handler.server.uploads.clear()
    return False


@pytest.mark.parametrize(("method", "words"), [("PUT", "partNumber=2"), ("POST", "uploadId")])
def test_an_upload_that_another_has_aborted_begins_anew(
    server: WritableS3, writer: StorageWriter, job: Job, method: str, words: str
) -> None:
    strike(server, method, words, abort_first)
    put(writer, LARGE, job)
    assert (server.objects["p/a"], server.uploads) == (LARGE, {})
    strike(server, method, words, abort_first, times=100)
    with pytest.raises(UnderStorageError, match="aborted by somebody else"):
        put(writer, b"x" * len(LARGE), job)
    assert server.objects["p/a"] == LARGE


def test_the_end_of_an_upload_is_known_by_its_etag(
    server: WritableS3, writer: StorageWriter, job: Job
) -> None:
    """Its answer was lost, and the upload is no more: it was completed."""
    strike(server, "POST", "uploadId", WritableHandler.lose)
    put(writer, LARGE, job)
    assert len(server.named("PUT", "partNumber")) == 3


def test_an_end_that_is_not_proven_is_uploaded_anew(
    server: WritableS3, writer: StorageWriter, job: Job
) -> None:
    def lose(handler: WritableHandler) -> None:
        handler.lose()
        # Some servers give the object another ETag than the upload.
        handler.server.multipart_etags["p/a"] = "0" * 32

    strike(server, "POST", "uploadId", lose)
    put(writer, LARGE, job)
    assert len(server.named("PUT", "partNumber")) == 6
    assert server.objects["p/a"] == LARGE


@pytest.mark.parametrize("size", [100, len(LARGE)])
def test_an_exclusive_write_knows_its_own_object(
    server: WritableS3, writer: StorageWriter, job: Job, size: int
) -> None:
    """The first attempt made it, and the second is refused."""
    method, words = ("PUT", "/p/a") if size < PART else ("POST", "uploadId")
    strike(server, method, words, WritableHandler.lose)
    put(writer, LARGE[:size], job, exclusive=True)
    assert (len(server.objects["p/a"]), server.uploads) == (size, {})


@pytest.mark.parametrize("size", [100, len(LARGE)])
def test_an_exclusive_write_knows_the_object_of_another(
    server: WritableS3, writer: StorageWriter, job: Job, size: int
) -> None:
    def come_first(handler: WritableHandler) -> None:
        handler.server.objects["p/a"] = LARGE[:size]
        handler.drop()

    method, words = ("PUT", "/p/a") if size < PART else ("POST", "uploadId")
    strike(server, method, words, come_first)
    with pytest.raises(FileExistsError, match="p/a"):
        put(writer, LARGE[:size], job, exclusive=True)
    assert (server.uploads, job.is_left) == ({}, False)


def test_a_conflict_of_exclusive_writes_is_tried_again(
    server: WritableS3, writer: StorageWriter, job: Job
) -> None:
    strike(server, "PUT", "/p/a", lambda handler: handler.refuse(409, "ConditionalRequestConflict"))
    put(writer, b"1", job, exclusive=True)
    assert server.objects["p/a"] == b"1"


@pytest.mark.parametrize(
    ("honours", "bytes_max"), [(set(), 0), ({"PUT"}, PART), ({"POST"}, 0), ({"PUT", "POST"}, 5 << 40)]
)
def test_a_server_is_tried_once(
    server: WritableS3, writer: StorageWriter, job: Job, honours: set[str], bytes_max: int
) -> None:
    server.honours = honours
    server.objects["p/a"] = b"old"
    for _ in range(2):
        assert writer.exclusive_bytes_max("d/a", job) == bytes_max
        requests = len(server.requests)
    assert writer.exclusive_bytes_max("d/b", job) == bytes_max
    assert len(server.requests) == requests
    assert (server.objects, server.uploads, job.is_left) == ({"p/a": b"old"}, {}, False)
    assert all("/p/d/.forebay-probe-" in each.path for each in server.requests if each.method != "GET")


def test_a_server_that_was_being_tried_is_cleaned_up(
    server: WritableS3, writer: StorageWriter, job: Job
) -> None:
    strike(server, "DELETE", "", lambda handler: handler.refuse(500, "InternalError"), times=100)
    assert writer.exclusive_bytes_max("a", job) == 5 << 40
    assert (len(server.objects), len(server.uploads), job.is_left) == (1, 1, True)
    server.interfere = None
    writer.undo(job.facts)
    assert (server.objects, server.uploads) == ({}, {})


def heads(server: WritableS3) -> int:
    return len(server.named("HEAD"))


def test_answers_are_believed_once_one_has_proven_right(
    server: WritableS3, writer: StorageWriter, storage: UnderStorage, job: Job
) -> None:
    first = writer.put("a", BytesPayload(b"1"), job)
    assert (heads(server), first.is_own, first.info) == (1, True, storage.stat("a"))
    asked = heads(server)
    second = writer.put("b", BytesPayload(b"22"), job)
    assert (heads(server), second.is_own, second.info.size) == (asked, True, 2)
    assert second.info.version == storage.stat("b").version


def test_a_version_that_may_be_of_another_is_not_claimed(
    server: WritableS3, writer: StorageWriter, job: Job
) -> None:
    def write_over(handler: Handler) -> object:
        if handler.command == "HEAD":
            server.objects["p/a"] = b"of another"
        return False

    server.interfere = write_over
    written = writer.put("a", BytesPayload(b"1"), job)
    assert (written.is_own, written.info.size) == (False, 10)


def test_a_payload_that_changed_is_not_completed(server: WritableS3, writer: StorageWriter, job: Job) -> None:
    class Changing(Watched):
        def check(self) -> None:
            raise OSError(errno.EBUSY, "changed", "payload")

    for size in (10, len(LARGE)):
        with pytest.raises(OSError, match="changed"):
            writer.put("a", Changing(LARGE[:size], lambda offset: None), job)
    assert (server.objects, server.uploads) == ({}, {})


def test_parts_are_not_sent_after_one_has_failed(server: WritableS3, writer: StorageWriter, job: Job) -> None:
    class OneByOne(Job):
        def run_all(self, tasks: Any) -> Any:
            failed: list[OSError] = []
            for _, run in tasks:
                try:
                    run()
                except OSError as error:
                    failed.append(error)
            raise failed[0]

    strike(server, "PUT", "partNumber=1", lambda handler: handler.refuse(403, "AccessDenied"), times=9)
    with pytest.raises(PermissionError):
        put(writer, LARGE, OneByOne())
    assert len(server.named("PUT", "partNumber")) == 1


def test_large_objects_are_copied_in_parts(
    server: WritableS3, writer: StorageWriter, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_s3_writer, "_COPY_BYTES_MAX", 1_000)
    monkeypatch.setattr(_s3_writer, "_COPY_PART_BYTES", PART)
    server.objects["p/a"] = LARGE
    assert writer.rename("a", "b/c", job).size == len(LARGE)
    assert (server.objects, server.uploads) == ({"p/b/c": LARGE}, {})
    assert len(server.named("PUT", "partNumber")) == 3
    strike(server, "PUT", "partNumber", lambda handler: handler.refuse(412, "PreconditionFailed"))
    with pytest.raises(Stale):
        writer.rename("b/c", "d", job)
    assert (list(server.objects), server.uploads) == (["p/b/c"], {})


def test_a_copy_of_another_size_is_not_believed(server: WritableS3, writer: StorageWriter, job: Job) -> None:
    server.objects["p/a"] = b"12345"

    def cut(handler: Handler) -> object:
        if handler.command == "HEAD" and handler.path.endswith("/b"):
            server.objects["p/b"] = b"123"
        return False

    server.interfere = cut
    with pytest.raises(UnderStorageError, match="nothing was deleted"):
        writer.rename("a", "b", job)
    assert server.objects["p/a"] == b"12345"


def test_an_object_that_is_a_directory_too_is_deleted_alone(
    server: WritableS3, writer: StorageWriter, storage: UnderStorage
) -> None:
    server.objects |= {"p/x": b"1", "p/x/y": b"2"}
    writer.delete("x")
    assert (list(server.objects), storage.stat("x").is_dir) == (["p/x/y"], True)
    with pytest.raises(UnderStorageError) as caught:
        writer.delete("x")
    assert caught.value.errno == errno.ENOTEMPTY


def test_markers_of_directories(server: WritableS3, writer: StorageWriter, storage: UnderStorage) -> None:
    writer.mkdir("d/e")
    assert server.objects == {"p/d/e/": b""}
    assert (storage.stat("d").is_dir, list(storage.list("d/e"))) == (True, [[]])
    server.objects["p/d/e/f"] = b"1"
    writer.delete("d/e/f")
    writer.delete("d/e")
    assert server.objects == {}
    with pytest.raises(NotFound):
        writer.delete("d/e")


def test_a_server_that_takes_markers_for_objects(server: WritableS3, writer: StorageWriter) -> None:
    def as_object(handler: Handler) -> object:
        server.objects = {key.rstrip("/"): data for key, data in server.objects.items()}
        handler.path = handler.path.rstrip("/")
        return False

    server.interfere = as_object
    with pytest.raises(UnderStorageError) as caught:
        writer.mkdir("d")
    assert (caught.value.errno, server.objects) == (errno.EOPNOTSUPP, {})


def test_what_is_too_large_is_refused_at_once(server: WritableS3, writer: StorageWriter, job: Job) -> None:
    payload = BytesPayload(b"")
    payload.size = (5 << 40) + 1
    with pytest.raises(UnderStorageError) as caught:
        writer.put("a", payload, job)
    assert (caught.value.errno, server.requests) == (errno.EFBIG, [])
