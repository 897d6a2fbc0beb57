"""Where the tests of writes write, and the cache that they write through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults._write_moments import OpenCache, Source, opener, source_of


@pytest.fixture
def open_cache(tmp_path: Path, memory_path: Path) -> OpenCache:
    """Open the test's cache, in whatever process."""
    return opener(tmp_path, memory_path)


@pytest.fixture(params=["file", "s3"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    """A folder, and then a bucket, looked at without the cache."""
    with source_of(request.param, tmp_path) as source:
        yield source
