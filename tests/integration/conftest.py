"""Shared by the integration tests: a cache directory with one small tier of memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from tests.integration._sites import OpenCache


@pytest.fixture
def open_cache(tmp_path: Path, memory_path: Path) -> Iterator[OpenCache]:
    """Open the test's cache directory, as often as wanted; closed at the end."""
    opened: list[Cache] = []

    def open_one(**options: object) -> Cache:
        tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
        options = {"block_bytes": 64 * KIB, **options}
        opened.append(Cache(tmp_path / "cache", tiers, **options))  # type: ignore[arg-type]  # any option
        return opened[-1]

    yield open_one
    for cache in opened:
        cache.close()
