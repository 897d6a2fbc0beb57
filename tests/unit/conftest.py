"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit._stores import Stores


@pytest.fixture
def stores(memory_path: Path, tmp_path: Path) -> Iterator[Stores]:
    """What opens stores for this test."""
    opener = Stores(memory_path, tmp_path)
    yield opener
    opener.close()
