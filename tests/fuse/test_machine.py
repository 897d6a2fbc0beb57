"""The cache's model of a changing under storage, held against mounts; tests/stress has the long run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.fuse._mount_machine import MountMachine

TestMount = MountMachine.TestCase
TestMount.settings = settings(
    max_examples=8, stateful_step_count=30, suppress_health_check=list(HealthCheck), print_blob=True
)
