"""Quotas and accounts of datasets against a model, over kills and restarts: the short run.

tests/stress has the long one.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

from tests.property._account_machine import AccountMachine

TestAccounts = AccountMachine.TestCase
TestAccounts.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    # Kills never fall twice in the same place: there is nothing to shrink by.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
