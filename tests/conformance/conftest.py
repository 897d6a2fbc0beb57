"""What all suites of storages are run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forebay.ufs._s3_endpoint import endpoint_of
from tests._moto import moto_server


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        endpoint_of(url).learn_ranges(206)
        yield url
