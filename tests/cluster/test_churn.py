"""Members join and leave over and over during reads: no read fails, and no byte is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster._churn import leave_and_come_back, show_views
from tests.cluster._site import Site, running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("group"), 3) as site:
        yield site


def test_a_client_sees_members_join_and_leave_a_hundred_times(site: Site) -> None:
    show_views(site, 100)


def test_members_leave_and_come_back_during_reads(site: Site) -> None:
    leave_and_come_back(site, 3)
