"""The cache over an under storage that changes underneath it, with faults and crashes: the short run.

tests/stress has the long one.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.property._cache_writes import WritingCacheMachine

TestCache = WritingCacheMachine.TestCase
TestCache.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck), print_blob=True
)
