"""The block store against a dict, with crashes and rebuilds as operations: the short run.

tests/stress has the long one.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.property._machine import StoreMachine

TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck), print_blob=True
)
