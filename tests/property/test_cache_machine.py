"""The cache over an under storage that changes underneath it, with faults and crashes: the short run.

tests/stress has the long one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from forebay.errors import NotFound
from tests.property._cache_source import Fault, SharedStorage, Source
from tests.property._cache_writes import WritingCacheMachine

TestCache = WritingCacheMachine.TestCase
TestCache.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck), print_blob=True
)


def test_a_fault_of_a_write_that_did_nothing_befalls_no_later_one(tmp_path: Path) -> None:
    source = Source(tmp_path, is_manual=True)
    storage = SharedStorage(source, "shared://d")
    writer = storage.writer()
    source.put("there", 1)
    source.plan([Fault("delete", "lost")])
    with pytest.raises(NotFound):
        writer.delete("absent")
    source.plan([])
    writer.delete("there")
    source.put("there", 1)
    source.plan([Fault("delete", "lost")])
    with pytest.raises(TimeoutError):
        writer.delete("there")
