"""Quotas and accounts of datasets, at length: the same machine as in tests/property, more and longer runs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.property._account_machine import AccountMachine


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("steps", [25, 100])
def test_room_and_accounts_are_exact(steps: int) -> None:
    run_state_machine_as_test(
        AccountMachine,
        settings=settings(
            max_examples=100,
            stateful_step_count=steps,
            deadline=None,
            phases=[Phase.explicit, Phase.reuse, Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
