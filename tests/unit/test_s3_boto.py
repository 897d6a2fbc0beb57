"""boto3's clients as they are made: what they share, and what they do not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay.ufs._s3_boto import BotoClient
from forebay.ufs._s3_endpoint import Endpoint
from tests._s3 import give_keys


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    give_keys(monkeypatch)


def descriptions(bucket: str) -> Any:
    made = BotoClient(bucket, {"region": "eu-west-1"}, 3.0, Endpoint(), lambda _: None)
    return made.session.get_component("data_loader")


def test_clients_of_one_process_share_what_botocore_reads_for_each() -> None:
    assert descriptions("one") is descriptions("two")


def test_a_client_that_looks_elsewhere_has_descriptions_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = descriptions("one")
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    own = descriptions("one")
    assert own is not usual
    assert str(tmp_path) in own.search_paths
    assert str(tmp_path) not in usual.search_paths


def test_clients_that_share_descriptions_keep_sessions_and_settings_of_their_own() -> None:
    one = BotoClient("one", {"region": "eu-west-1"}, 3.0, Endpoint(), lambda _: None)
    two = BotoClient("two", {"endpoint_url": "http://h:1"}, 3.0, Endpoint(), lambda _: None)
    assert one.session is not two.session
    assert one.is_aws
    assert not two.is_aws
