"""Members that tell of no data port: their blocks come over gRPC, by the same frames."""

from __future__ import annotations

from pathlib import Path

from tests.cluster._members import Serve
from tests.cluster._site import read_all, running

WITHOUT_DATA_PORT = Serve(options=("--data-port", "-1"))


def test_members_without_a_data_port_are_read_from(tmp_path: Path) -> None:
    with running(tmp_path, 2, WITHOUT_DATA_PORT) as site, site.client().open() as cache:
        assert all(each.data_port == 0 for each in site.members.all)
        read_all(cache)
        site.requests()
        read_all(cache)
        assert site.requests() == 0
        assert cache.status()["counters"]["source_requests"] == 0
