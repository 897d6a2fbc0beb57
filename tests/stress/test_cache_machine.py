"""The cache over a changing under storage, at length: the same machine as in tests/property, more runs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property._cache_writes import WritingCacheMachine


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("steps", [30, 120])
def test_the_cache_is_what_the_history_allows(steps: int) -> None:
    run_state_machine_as_test(
        WritingCacheMachine,
        settings=settings(
            max_examples=500,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
