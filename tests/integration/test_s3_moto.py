"""What AWS answers, as moto knows it: the errors that no real server at hand gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from forebay.errors import NotFound, Stale, UnderStorageError
from forebay.ufs._s3_endpoint import endpoint_of
from forebay.ufs.s3 import S3Storage
from tests._moto import begin_anew, moto_server, put_into_moto
from tests._s3 import give_keys

DATA = bytes(range(256)) * 20_000


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        endpoint_of(url).learn_ranges(206)
        yield url


@pytest.fixture(params=["auto", "boto3"])
def storage(
    moto: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[S3Storage]:
    give_keys(monkeypatch)
    begin_anew()
    put_into_moto("a", DATA)
    storage = storage_at(moto, "bucket", client=request.param)
    yield storage
    storage.close()


def storage_at(url: str, bucket: str, **options: Any) -> S3Storage:
    return S3Storage(f"s3://{bucket}", {"endpoint_url": url, "attempts": 2, **options})


def read(storage: S3Storage, path: str, offset: int, length: int, version: str | None = None) -> bytes:
    with storage.read_range(path, offset, length, version) as body:
        buffer = bytearray(body.length)
        body.readinto(memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (0, len(DATA)), (0, 1 << 50), (1, 2_000_000), (len(DATA) - 1, 9), (len(DATA), 1), (1 << 50, 1)],
)
def test_ranges(storage: S3Storage, offset: int, length: int) -> None:
    assert read(storage, "a", offset, length) == DATA[offset : offset + length]


def test_an_object_that_changes_is_stale_and_then_new(storage: S3Storage) -> None:
    version = storage.stat("a").version
    put_into_moto("a", DATA[::-1])
    with pytest.raises(Stale):
        read(storage, "a", 100, 100, version)
    new = storage.stat("a").version
    assert new != version
    assert read(storage, "a", 100, 100, new) == DATA[::-1][100:200]


def test_an_object_of_parts_has_one_version_everywhere(moto: str, storage: S3Storage) -> None:
    client = boto3.client("s3", endpoint_url=moto)
    upload = client.create_multipart_upload(Bucket="bucket", Key="parts")["UploadId"]
    parts = []
    for number, part in ((1, b"x" * (5 << 20)), (2, b"end")):
        done = client.upload_part(Bucket="bucket", Key="parts", UploadId=upload, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": done["ETag"]})
    client.complete_multipart_upload(
        Bucket="bucket", Key="parts", UploadId=upload, MultipartUpload={"Parts": parts}
    )
    client.close()
    (listed,) = [info for page in storage.walk("") for info in page if info.path == "parts"]
    assert listed.version.endswith("-2")
    with storage.read_range("parts", 5 << 20, 10, listed.version) as body:
        assert body.info == listed == storage.stat("parts")


EVERY_WAY: list[Callable[[S3Storage], object]] = [
    lambda storage: storage.stat("d/x"),
    lambda storage: read(storage, "d/x", 0, 10),
    lambda storage: list(storage.list("d")),
    lambda storage: list(storage.walk("d")),
]


@pytest.mark.parametrize("attempt", EVERY_WAY, ids=["stat", "read", "list", "walk"])
def test_an_absent_key_and_an_absent_bucket_are_different_things(
    moto: str, storage: S3Storage, attempt: Callable[[S3Storage], object]
) -> None:
    with pytest.raises(NotFound, match="s3://bucket/d"):
        attempt(storage)
    elsewhere = storage_at(moto, "elsewhere")
    with pytest.raises(UnderStorageError, match="bucket 'elsewhere' does not exist"):
        attempt(elsewhere)
    elsewhere.close()


@pytest.mark.parametrize("key", ["k" * 1024, "ü/😀", "a/b", "tab\t", "+ %20&=?#", "d/...", "*?[x]"])
def test_hostile_keys(storage: S3Storage, key: str) -> None:
    put_into_moto(key, key.encode())
    put_into_moto(f"{key}//below", b"hidden")
    (found,) = [info for page in storage.walk("") for info in page if info.path != "a"]
    assert found == storage.stat(key)
    assert read(storage, key, 0, 2_000, found.version) == key.encode()
    assert storage.counts()["hidden_keys"] == 1


def test_many_keys_are_walked_in_ranges(storage: S3Storage) -> None:
    keys = {f"d{number % 5}/{number:05}" for number in range(6_000)}
    for key in keys:
        put_into_moto(key, b"")
    assert {info.path for page in storage.walk("") for info in page} == keys | {"a"}
