"""Listings and walks of S3, page by page: complete, or an error that says why not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from forebay.errors import NotFound, UnderStorageError
from forebay.ufs.s3 import S3Storage
from tests._s3 import FakeS3, Handler, give_keys


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    give_keys(monkeypatch)
    with FakeS3() as server:
        yield server


@pytest.fixture
def storage(server: FakeS3) -> Iterator[S3Storage]:
    storage = S3Storage("s3://bucket", {"endpoint_url": server.url, "attempts": 2})
    yield storage
    storage.close()


def walked(storage: S3Storage, path: str = "", workers: int = 8) -> list[str]:
    return [info.path for page in storage.walk(path, workers) for info in page]


def test_a_large_prefix_is_listed_in_ranges(server: FakeS3, storage: S3Storage) -> None:
    server.page_keys = 50
    keys = [f"data/{number:05}.jpg" for number in range(5_000)]
    server.fill([*keys, "data", "other/file"])
    assert sorted(walked(storage, "data")) == keys
    queries = server.listings()
    assert len([query for query in queries if "start-after" in query]) >= 8
    assert len(queries) < 100 * 2
    assert all(query["prefix"] == "data/" for query in queries)


def test_directories_are_where_the_first_cuts_are(server: FakeS3, storage: S3Storage) -> None:
    server.page_keys = 50
    keys = [f"train/class{number % 20:02}/{number:05}" for number in range(2_000)]
    server.fill(keys)
    assert sorted(walked(storage)) == sorted(keys)
    starts = {query.get("start-after", "") for query in server.listings()}
    assert len([start for start in starts if start.endswith("/")]) >= 8


def test_one_worker_lists_one_chain_of_pages(server: FakeS3, storage: S3Storage) -> None:
    server.page_keys = 50
    server.fill([f"{number:05}" for number in range(1_000)])
    assert walked(storage, workers=1) == sorted(server.objects)
    assert len(server.listings()) == 20


def test_a_server_that_starts_at_the_beginning_whatever_is_asked_for(
    server: FakeS3, storage: S3Storage
) -> None:
    server.page_keys = 50
    server.starts_after = False
    server.fill([f"{number:05}" for number in range(1_000)])
    assert sorted(walked(storage)) == sorted(server.objects)


def test_a_server_that_sorts_otherwise(server: FakeS3, storage: S3Storage) -> None:
    server.page_keys = 50
    server.descending = True
    server.fill([f"{number:05}" for number in range(1_000)])
    assert sorted(walked(storage)) == sorted(server.objects)
    assert len(server.listings()) == 20


HIDDEN = ["d//b", "d/", "/a", "d/./x", "d/../x", "d/..", ".", "x/"]


def test_keys_that_no_path_can_name_are_hidden_and_counted(server: FakeS3, storage: S3Storage) -> None:
    server.fill([*HIDDEN, "d/good"], b"data")
    assert walked(storage) == ["d/good"]
    assert storage.counts()["hidden_keys"] == len(HIDDEN)
    assert [info.path for page in storage.list("d") for info in page] == ["d/good"]
    # Below d: the empty object name, "..", and the groups "/", "./" and "../".
    assert storage.counts()["hidden_keys"] == len(HIDDEN) + 5


def test_markers_of_directories_are_not_counted(server: FakeS3, storage: S3Storage) -> None:
    server.fill(["d/", "d/e/", "d/e/file"])
    assert walked(storage, "d") == ["d/e/file"]
    assert storage.counts()["hidden_keys"] == 0


def page_of(
    *, truncated: str, token: str, keys: str = "<Contents><Key>a</Key><Size>1</Size></Contents>"
) -> bytes:
    return (
        f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>"
        f"<NextContinuationToken>{token}</NextContinuationToken>{keys}</ListBucketResult>"
    ).encode()


@pytest.mark.parametrize("token", ["", "the same"])
@pytest.mark.parametrize(
    "attempt", [lambda storage: walked(storage), lambda storage: [*storage.list("")]], ids=["walk", "list"]
)
def test_a_truncated_page_without_a_new_token_is_an_error(
    server: FakeS3, storage: S3Storage, token: str, attempt: Callable[[S3Storage], object]
) -> None:
    server.interfere = lambda handler: handler.reply(200, page_of(truncated="true", token=token))
    with pytest.raises(UnderStorageError, match="cut short"):
        attempt(storage)


def test_pages_without_keys_do_not_go_on_for_ever(server: FakeS3, storage: S3Storage) -> None:
    def answer(handler: Handler) -> None:
        token = f"{len(server.requests)}"
        handler.reply(200, page_of(truncated="true", token=token, keys=""))

    server.interfere = answer
    with pytest.raises(UnderStorageError, match="cut short"):
        walked(storage, workers=1)


@pytest.mark.parametrize(
    "body", [page_of(truncated="false", token="")[:-30], b"", b"not XML", b"<Other/>", b"<Error/>"]
)
def test_what_is_no_listing_is_tried_again_and_then_an_error(
    server: FakeS3, storage: S3Storage, body: bytes
) -> None:
    server.interfere = lambda handler: handler.reply(200, body)
    for attempt in (lambda: walked(storage), lambda: list(storage.list(""))):
        server.requests.clear()
        with pytest.raises(UnderStorageError):
            attempt()
        assert len(server.requests) == 2


def test_an_error_in_the_middle_ends_the_walk(server: FakeS3, storage: S3Storage) -> None:
    server.page_keys = 50
    server.fill([f"{number:05}" for number in range(5_000)])

    def fail_late(handler: Handler) -> bool:
        if len(server.requests) < 20:
            return False
        handler.refuse(403, "AccessDenied")
        return True

    server.interfere = fail_late
    with pytest.raises(PermissionError, match="AccessDenied"):
        walked(storage)


def test_a_page_that_fails_is_asked_for_again(server: FakeS3, storage: S3Storage) -> None:
    server.page_keys = 50
    server.fill([f"{number:05}" for number in range(2_000)])
    failed: set[str] = set()

    def fail_once(handler: Handler) -> bool:
        if handler.path in failed:
            return False
        failed.add(handler.path)
        handler.refuse(500, "InternalError")
        return True

    server.interfere = fail_once
    assert sorted(walked(storage)) == sorted(server.objects)


def test_who_stops_early_stops_the_requests(server: FakeS3, storage: S3Storage) -> None:
    server.page_keys = 50
    server.fill([f"{number:05}" for number in range(20_000)])
    pages = storage.walk("", 4)
    assert next(iter(pages))
    pages.close()  # type: ignore[attr-defined]
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("forebay-walk")]
    for worker in workers:
        worker.join(10)
    assert len(server.listings()) < 100


def test_nothing_below_is_said(server: FakeS3, storage: S3Storage) -> None:
    assert walked(storage) == []
    with pytest.raises(NotFound, match="bucket/nowhere"):
        walked(storage, "nowhere")


def test_a_missing_bucket_is_said(server: FakeS3) -> None:
    storage = S3Storage("s3://no-such-bucket/d", {"endpoint_url": server.url, "attempts": 1})
    for attempt in (lambda: walked(storage), lambda: list(storage.list("")), lambda: storage.stat("")):
        with pytest.raises(UnderStorageError, match="'no-such-bucket' does not exist"):
            attempt()
    storage.close()
