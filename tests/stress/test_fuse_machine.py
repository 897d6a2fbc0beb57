"""Mounts over a changing under storage, at length: the same machine as in tests/fuse, more runs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.fuse._mount_machine import MountMachine


@pytest.mark.timeout(7200)
def test_a_mount_shows_what_the_history_allows() -> None:
    run_state_machine_as_test(
        MountMachine,
        settings=settings(
            max_examples=300,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
