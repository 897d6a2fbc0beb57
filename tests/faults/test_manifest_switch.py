"""Manifests while others switch them, make the same one, fill the disk or take the source away."""

from __future__ import annotations

import errno
import io
import itertools
import json
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.config import MIB
from forebay.errors import ConfigError, Stale, StoreBusy
from forebay.testing.tier import FaultyTier
from tests._s3 import FakeS3, Handler, give_keys
from tests.faults._child import DEADLINE_S, Child, wait_until
from tests.faults._manifests import FILES, Site, Tree, everything, tree_of
from tests.faults._source import Site as BucketSite

ROUNDS = 200


@pytest.fixture
def site(tmp_path: Path, memory_path: Path) -> Site:
    return Site(tmp_path, memory_path)


@pytest.fixture
def trees(site: Site) -> dict[str, Tree]:
    """Two versions, cached both, of files that differ in every byte."""
    trees = {version: tree_of(version, f"only-{version}", "big") for version in ("v1", "v2")}
    with site.open() as cache:
        for version, tree in trees.items():
            tree["big"] = version.encode() * 100_000
            site.write(tree)
            assert cache.load("d", manifest=version).wait(60).ok
    return trees


def switch(link: Connection, site: Site) -> int:
    """Body: switch back and forth until told to end; return how often."""
    count = 0
    with site.open() as cache:
        while not link.poll():
            try:
                cache.rollback("d")
            except StoreBusy:
                # The reader has had no processor for a second, in the midst of a look-up.
                continue
            count += 1
            if count == 1:
                link.send("begun")
    return count


def version_of(data: bytes) -> str:
    return data[:2].decode()


def read_by_all_means(cache: Cache, trees: dict[str, Tree]) -> Iterator[str]:
    """Do what takes several steps, each to be of one version; yield which it was."""
    names = {version: sorted(tree) for version, tree in trees.items()}
    walked = sorted(
        f"{directory}/{name}".partition("/")[2] for directory, _, found in cache.walk("d") for name in found
    )
    yield next(version for version, found in names.items() if found == walked)
    common = sorted(trees["v1"].keys() & trees["v2"].keys())
    views = [bytes(view) for view in cache.read_many(f"d/{name}" for name in common)]
    version = version_of(views[0])
    assert views == [trees[version][name] for name in common]
    yield version
    blocks = [bytes(view) for view in cache.views("d/big")]
    assert len(blocks) == 4
    assert b"".join(blocks) == trees[version_of(blocks[0])]["big"]
    yield version_of(blocks[0])
    with cache.open("d/big") as file:
        data = b"".join(iter(lambda: file.read(30_000), b""))
    assert data == trees[version_of(data)]["big"]
    yield version_of(data)
    assert bytes(cache.read("d/big")) in (trees["v1"]["big"], trees["v2"]["big"])
    usage = cache.usage("d")
    sizes = {version: sum(map(len, tree.values())) for version, tree in trees.items()}
    assert (usage.objects, usage.bytes) in [(FILES + 2, size) for size in sizes.values()]


def test_a_reader_in_the_middle_sees_one_version(site: Site, trees: dict[str, Tree]) -> None:
    seen: list[str] = []
    with site.open() as cache, Child(switch, site) as child:
        child.receive()
        requests = cache.status()["counters"]["source_requests"]
        deadline_s = time.monotonic() + DEADLINE_S
        for number in itertools.count():
            # As often as that, and until the other one had the processor in between.
            if number >= ROUNDS and set(seen) == {"v1", "v2"}:
                break
            assert time.monotonic() < deadline_s
            seen += read_by_all_means(cache, trees)
            if number % 20 == 0:
                job = cache.load("d")
                # Neither version lacks anything, so a load finds all of the one that it began with.
                figures = job.wait(60).progress
                assert (figures.files_total, figures.files_skipped) == (FILES + 2, FILES + 2)
        child.send("end")
        assert child.result() > 1
        assert cache.status()["counters"]["source_requests"] == requests
        in_use = cache.datasets()[0].manifest
        assert in_use is not None
        assert everything(cache, "d") == trees[in_use]


def load_when_told(link: Connection, site: Site) -> str:
    """Body: load the folder as a version at a given moment."""
    with site.open() as cache:
        link.send("open")
        link.recv()
        try:
            result = cache.load("d", manifest="v1").wait()
        except ConfigError as error:
            return str(error)
        return result.reason or result.state


def test_of_two_that_make_one_version_one_wins(site: Site) -> None:
    site.write(tree_of("v1"))
    words = "dataset 'd' has a manifest 'v1' already; delete it first, or take another name"
    with site.open() as cache:
        for _ in range(5):
            with Child(load_when_told, site) as first, Child(load_when_told, site) as second:
                for child in (first, second):
                    child.receive()
                for child in (first, second):
                    child.send("go")
                assert sorted([first.result(), second.result()]) == [words, "done"]
            assert [status.version for status in cache.manifests("d")] == ["v1"]
            assert len(site.files()) == 1
            assert everything(cache, "d") == tree_of("v1")
            cache.use_manifest("d", None)
            cache.delete_manifest("d", "v1")


def lines(count: int) -> io.BytesIO:
    """Return the text of a manifest of so many objects."""
    rows = ({"path": f"d{n % 97}/{n:08}", "size": n, "version": f"{n:032x}"} for n in range(count))
    return io.BytesIO("".join(json.dumps(row) + "\n" for row in rows).encode())


def test_a_full_disk_is_an_error_and_nothing_is_shown(tmp_path: Path, memory_path: Path) -> None:
    with FaultyTier(tmp_path / "disk", 24 * MIB) as disk:
        site = Site(disk.path, memory_path)
        with site.open() as cache:
            site.write(tree_of("v1"))
            assert cache.load("d", manifest="v1").wait(60).ok
            before = site.files()
            disk.fill(leave_bytes=2 * MIB)
            with pytest.raises(OSError, match="No space left") as caught:
                cache.import_manifest("d", "v2", lines(50_000), use=True)
            assert caught.value.errno == errno.ENOSPC
            assert caught.value.filename.endswith("-v2.lmdb")
            disk.relieve()
            assert site.files() == before
            assert [status.version for status in cache.manifests("d")] == ["v1"]
            assert everything(cache, "d") == tree_of("v1")
            # With room again it is made.
            assert cache.import_manifest("d", "v2", lines(5_000), use=True).objects == 5_000
            assert len(cache.listdir("d")) == 97
            assert cache.rollback("d") == "v1"


def test_a_load_that_fills_the_disk_says_so(tmp_path: Path, memory_path: Path) -> None:
    with FaultyTier(tmp_path / "disk", 24 * MIB) as disk:
        site = Site(disk.path, memory_path)
        with site.open() as cache:
            cache.import_manifest("d", "large", lines(20_000))
            before = site.files()
            disk.fill(leave_bytes=1 * MIB)
            result = cache.load("d@large", metadata_only=True, manifest="v2").wait(60)
            assert (result.state, "No space left on device" in result.reason) == ("failed", True)
            assert f"{len(before) + 1}-v2.lmdb" in result.reason
            disk.relieve()
            assert site.files() == before
            assert cache.resume(result.id).wait(60).ok
            assert [status.objects for status in cache.manifests("d")] == [20_000, 20_000]


@pytest.fixture
def bucket(tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketSite]:
    give_keys(monkeypatch)
    with FakeS3() as server:
        server.objects.update(tree_of("v1"))
        yield BucketSite(server, tmp_path / "cache", memory_path)


def test_a_source_that_goes_in_the_middle_costs_nothing_but_time(bucket: BucketSite) -> None:
    """The load ends incomplete and shows nothing; gone on with, it brings what is missing and no more."""
    answered: list[str] = []

    def go_away(handler: Handler) -> Any:
        if handler.command == "GET" and "list-type" not in handler.path and len(answered) >= FILES // 2:
            handler.refuse(403, "AccessDenied")
            return True
        answered.append(handler.path)
        return False

    with bucket.open() as cache:
        cache.attach("d", cache.datasets()[0].uri, endpoint_url=bucket.server.url, manifest_only=True)
        bucket.server.interfere = go_away
        job = cache.load("d", manifest="v1")
        result = job.wait(60)
        assert (result.state, result.progress.files_failed > 0) == ("incomplete", True)
        assert cache.listdir("d") == []
        bucket.server.interfere = None
        bucket.server.requests.clear()
        resumed = cache.resume(job.id).wait(60)
        assert resumed.ok
        assert resumed.progress.files_done == result.progress.files_failed == bucket.gets()
        assert everything(cache, "d") == tree_of("v1")


def test_a_source_that_is_gone_is_not_missed_by_what_is_cached(bucket: BucketSite) -> None:
    with bucket.open() as cache:
        assert cache.load("d", manifest="v1").wait(60).ok
        cache.free("d/dir1/f1")
        bucket.server.objects.clear()
        bucket.server.requests.clear()
        assert cache.stat("d/dir1/f1").size == len(tree_of("v1")["dir1/f1"])
        assert cache.read("d/dir2/f2") == tree_of("v1")["dir2/f2"]
        assert bucket.server.requests == []
        with pytest.raises(Stale, match="manifest 'v1' lists"):
            cache.read("d/dir1/f1")
        # Put back as it was, it is of the version that is listed.
        bucket.server.objects.update(tree_of("v1"))
        assert cache.read("d/dir1/f1") == tree_of("v1")["dir1/f1"]


def test_old_versions_are_kept_for_the_manifests_that_list_them(site: Site, trees: dict[str, Tree]) -> None:
    """Their source has been written over, and listed since: what reclaims old versions leaves them alone."""
    with site.open() as cache:
        cache.use_manifest("d", "v1")
        for number in range(3):
            site.write(tree_of(f"w{number}"))
            cache.load("d", metadata_only=True, manifest=f"w{number}", use_manifest=False, wait=True)
            wait_until(
                lambda: not cache._runtime().metadata.entries.stale(1), "old versions were gone through"
            )
            assert everything(cache, "d@v2") == trees["v2"]
            assert everything(cache, "d") == trees["v1"]
