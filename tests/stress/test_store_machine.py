"""The block store against a dict, at length: the same machine as in tests/property, more and longer runs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property._machine import StoreMachine


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("steps", [30, 120])
def test_the_store_is_the_dict(steps: int) -> None:
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=500,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
