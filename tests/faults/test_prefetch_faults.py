"""Prefetch and recording under faults: a source that goes away, readers that are killed, a full disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.errors import UnderStorageError
from forebay.testing.tier import FaultyTier
from tests._s3 import FakeS3, Handler
from tests.faults._child import Child, wait_until
from tests.faults._source import Site, content

BLOCK = 64 * KIB
NAMES = [f"o{number:03}" for number in range(60)]
PATHS = [f"d/{name}" for name in NAMES]


@pytest.fixture
def site(tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server with the objects, each of a block."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "for-a-test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with FakeS3() as server:
        server.objects = {name: content(name) for name in NAMES}
        yield Site(server, tmp_path / "cache", memory_path)


def refuse(handler: Handler) -> None:
    handler.refuse(500, "InternalError")


def test_a_source_that_fails_in_the_middle_and_comes_back(site: Site) -> None:
    with site.open() as cache:
        # One attempt for each request, so that the source is as bad as it looks.
        cache.attach("d", "s3://bucket", endpoint_url=site.server.url, max_age=None, attempts=1)
        ahead = cache.prefetch(PATHS, window_bytes=8_000)
        right = {}
        for _ in range(20):
            path, view = next(ahead)
            right[path] = bytes(view)
        site.server.interfere = refuse
        told: list[str] = []
        for _ in range(20):
            try:
                path, view = next(ahead)
                right[path] = bytes(view)
            except UnderStorageError as error:
                told.append(error.filename)
        assert all(told)
        assert told
        site.server.interfere = None
        right |= {path: bytes(view) for path, view in ahead}
        assert right == {f"d/{name}": content(name) for name in NAMES if f"d/{name}" in right}
        assert len(right) == len(NAMES) - len(told)
        # Healed, the same reads succeed.
        assert {path: bytes(view) for path, view in cache.prefetch(PATHS)} == {
            f"d/{name}": content(name) for name in NAMES
        }
        status = cache.status()["fetch"]
        assert status["readahead_bytes"] == status["in_flight"] == 0


def test_a_source_that_stands_still_keeps_nobody_from_closing(site: Site) -> None:
    with site.open() as cache, site.gate(NAMES[5], first=100) as gate:
        with cache.prefetch(PATHS) as ahead:
            next(ahead)
            wait_until(gate.reached.is_set, "the object that stands still is asked for")
        # Answers that come just now are given up as they come.
        wait_until(lambda: cache.status()["fetch"]["readahead_bytes"] == 0, "what was read ahead is given up")
        assert bytes(cache.read(PATHS[30])) == content(NAMES[30])
        gate.opened.set()


def test_a_reader_that_is_killed_while_it_prefetches(site: Site) -> None:
    site.open().close()

    def read(link: Any) -> None:
        with site.open() as cache:
            for number, (path, view) in enumerate(cache.prefetch(PATHS)):
                assert bytes(view) == content(path[2:])
                if number == 10:
                    link.send("reads")

    with Child(read) as child:
        assert child.receive() == "reads"
        child.kill()
        child.exit_code()
    with site.open() as cache:
        found = {path: bytes(view) for path, view in cache.prefetch(PATHS)}
        assert found == {f"d/{name}": content(name) for name in NAMES}
        assert cache.check().ok


def test_a_killed_reader_loses_nothing_of_its_trace(site: Site) -> None:
    site.open().close()

    def read(link: Any) -> None:
        with site.open() as cache, cache.record("t"):
            for number in range(1_000_000):
                cache.read(PATHS[number % len(PATHS)]).release()
                link.send(number)

    with Child(read) as child:
        for _ in range(500):
            last = child.receive()
        child.kill()
        child.exit_code()
        while child.link.poll(0):
            try:
                last = child.link.recv()
            except EOFError:
                break
    with site.open() as cache:
        trace = cache.trace("t")
        assert trace.status().state == "interrupted"
        found = [access.path for access in trace.accesses()]
        assert len(found) >= last + 1
        assert found == [PATHS[number % len(PATHS)] for number in range(len(found))]
        assert [each.objects for each in cache.create_manifests("t")] == [len(NAMES)]


def test_a_full_disk_ends_the_recording_and_no_read(
    site: Site, tmp_path: Path, memory_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(FaultyTier(tmp_path / "disk", 64 * MIB))
        tiers = [Tier(str(memory_path / "tier"), 64 * MIB, "MEM")]
        cache = stack.enter_context(Cache(disk.path / "cache", tiers, block_bytes=BLOCK))
        cache.attach("d", "s3://bucket", endpoint_url=site.server.url, max_age=None)
        for path, view in cache.prefetch(PATHS):
            assert bytes(view) == content(path[2:])
        with cache.record("t", manifests=False) as trace:
            cache.read(PATHS[0]).release()
            disk.fill()
            with caplog.at_level(logging.WARNING, "forebay.cache.record"):
                for number in range(40_000):
                    with cache.read(PATHS[number % len(PATHS)]) as view:
                        assert len(view)
            warnings = [record for record in caplog.records if "nothing more is recorded" in record.message]
            assert len(warnings) == 1
            found = list(trace.accesses())
            assert 0 < len(found) < 40_001
        assert trace.status().state == "incomplete"
