"""What obstore is told: the endpoint as boto3 knows it, and nothing less safe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay.ufs._s3_boto import BotoClient
from forebay.ufs._s3_endpoint import Endpoint
from forebay.ufs._s3_obstore import bucket_url, client_options, make_client
from tests._s3 import give_keys


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    give_keys(monkeypatch)


def boto(bucket: str = "bucket", **options: Any) -> BotoClient:
    return BotoClient(bucket, options, 3.0, Endpoint(), lambda _: None)


@pytest.mark.parametrize(
    ("bucket", "options", "expected"),
    [
        ("bucket", {"region": "eu-west-1"}, ("https://bucket.s3.eu-west-1.amazonaws.com", True)),
        ("b.with.dots", {"region": "eu-west-1"}, ("https://s3.eu-west-1.amazonaws.com", False)),
        ("bucket", {"endpoint_url": "https://minio.example:9000"}, ("https://minio.example:9000", False)),
    ],
)
def test_the_bucket_stands_where_boto3_puts_it(
    bucket: str, options: dict[str, Any], expected: tuple[str, bool]
) -> None:
    assert bucket_url(boto(bucket, **options), options) == expected


@pytest.mark.parametrize(("url", "allowed"), [("http://h:1", True), ("https://h:1", False)])
def test_only_an_http_endpoint_is_asked_without_tls(url: str, allowed: bool) -> None:
    assert client_options(boto(endpoint_url=url), url, 3.0)["allow_http"] is allowed


def test_a_certificate_authority_of_boto3s_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ca.pem").write_bytes(b"certificates")
    made = boto(endpoint_url="https://h")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    assert client_options(made, "https://h", 3.0)["root_certificate"] == b"certificates"


@pytest.mark.parametrize(
    ("bucket", "environ"),
    [
        ("arn:aws:s3:eu-west-1:123456789012:accesspoint/mine", {}),
        ("bucket", {"AWS_CA_BUNDLE": "/no/such/file"}),
    ],
)
def test_what_only_boto3_can_do_is_left_to_it(
    bucket: str, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = boto(bucket, region="eu-west-1")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert make_client(made, {}, 3.0, Endpoint()) is None


def test_without_credentials_there_is_no_client_but_an_anonymous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    assert make_client(boto(), {}, 3.0, Endpoint()) is None
    assert make_client(boto(), {"anonymous": True}, 3.0, Endpoint()) is not None
