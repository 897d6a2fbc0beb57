"""kill -9 at 50 random moments of writes, by one request and by several, to S3 and to a folder."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults._write_moments import kill_at_moments, opener, source_of

MOMENTS = 50


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["put", "open"])
@pytest.mark.parametrize("kind", ["file", "s3"])
def test_killed_at_random_moments(tmp_path: Path, memory_path: Path, kind: str, how: str) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    with source_of(kind, tmp_path) as source:
        kill_at_moments(opener(tmp_path, memory_path), source, tmp_path, MOMENTS, how, seed)
