"""Shows what the members said whose processes run when a test fails."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.cluster import _members

_SHOWN_CHARS = 4_000


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the logs to the report of a failure."""
    report = yield
    if report.failed:
        for each in _members.running:
            report.sections.append((f"log of {each.folder.name}, {each.address}", each.log()[-_SHOWN_CHARS:]))
    return report
