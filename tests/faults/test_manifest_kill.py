"""kill -9 while manifests are made, switched and deleted: the one in use is whole, and nothing is left."""

from __future__ import annotations

import io
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.cache.reclaim import Reclaimer
from forebay.meta import Catalog, ManifestBuilder, ManifestFiles, Versions
from tests.faults._child import Child, wait_until
from tests.faults._manifests import FILES, Site, everything, tree_of

MOMENTS = 50


@pytest.fixture
def site(tmp_path: Path, memory_path: Path) -> Site:
    return Site(tmp_path, memory_path)


@pytest.fixture
def cache(site: Site) -> Iterator[Cache]:
    """A process that is there before and after whoever is killed."""
    with site.open() as cache:
        yield cache


def load(link: Connection, site: Site, version: str) -> None:
    """Body: load the folder as a version, having said that the cache is open."""
    with site.open() as cache:
        link.send("open")
        cache.load("d", manifest=version, wait=True)


def switch(link: Connection | None, site: Site) -> None:
    """Body: put one of two versions in use, and then the other, until killed; says when it has begun."""
    with site.open() as cache:
        while True:
            cache.use_manifest("d", "v1")
            cache.rollback("d")
            if link is not None:
                link.send("switched")
            link = None


def versions_of(cache: Cache) -> list[str]:
    return [status.version for status in cache.manifests("d")]


def in_use(cache: Cache) -> str | None:
    return cache.datasets()[0].manifest


def unowned(site: Site, cache: Cache) -> list[str]:
    """List files of manifests that are none, or that were deleted."""
    owned = {record.file_name for record in cache._runtime().metadata.versions.of(1).values()}
    return [name for name in site.files() if name.rpartition(".")[0] not in owned]


def assert_nothing_is_left(site: Site, cache: Cache) -> None:
    """Whoever opens the cache next takes away what killed processes left."""
    with site.open():
        wait_until(lambda: unowned(site, cache) == [], "files of no manifest are gone")
        # Last, behind the files.
        wait_until(lambda: cache._runtime().metadata.versions.deleted() == [], "their rows are gone")
    assert cache.check().ok


def test_loads_with_a_manifest_killed_at_random_moments(site: Site, cache: Cache) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng, trees = random.Random(seed), {"first": tree_of("a")}
    site.write(trees["first"])
    begun = time.monotonic()
    cache.load("d", manifest="first", wait=True)
    moment_s = time.monotonic() - begun
    for number in range(MOMENTS):
        version = f"v{number}"
        trees[version] = tree_of("ab"[number % 2])
        site.write(trees[version])
        before = in_use(cache)
        with Child(load, site, version) as child:
            if rng.random() < 0.8:
                child.receive()
            time.sleep(rng.uniform(0, 1.5 * moment_s))
            child.kill()
            child.exit_code()
        # It is there and in use, or neither, and nobody sees less than all of it.
        assert in_use(cache) == (version if version in versions_of(cache) else before)
        assert everything(cache, "d") == trees[in_use(cache) or ""]
        job = cache.jobs()[-1]
        if job.request.manifest == version and rng.random() < 0.2:
            assert cache.resume(job.id).wait(60).ok
            assert in_use(cache) == version
    for version in versions_of(cache):
        assert everything(cache, f"d@{version}") == trees[version]
    assert_nothing_is_left(site, cache)
    # The account: with one version left, its bytes are all that is cached.
    site.write(tree_of("last"))
    cache.load("d", manifest="last", wait=True)
    for version in versions_of(cache)[:-1]:
        cache.delete_manifest("d", version)
    wait_until(lambda: cache.status()["blocks"] == FILES, "old versions are reclaimed")
    assert len(site.files()) == 1
    assert everything(cache, "d") == tree_of("last")


def test_a_switch_killed_at_random_moments(site: Site, cache: Cache) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng, trees = (
        random.Random(seed),
        {version: tree_of(version, f"only-{version}") for version in ("v1", "v2")},
    )
    for version, tree in trees.items():
        site.write(tree)
        cache.load("d", manifest=version, wait=True)
    path = "d/dir1/f1"
    for _ in range(MOMENTS):
        with Child(switch, site) as child:
            child.receive()
            time.sleep(rng.uniform(0, 0.02))
            child.kill()
            child.exit_code()
        now = in_use(cache)
        assert now is not None
        # What this process remembered of the other version is not found any more.
        assert cache.read(path) == trees[now]["dir1/f1"]
        assert cache.stat(path).size == len(trees[now]["dir1/f1"])
        assert everything(cache, "d") == trees[now]
    cache.use_manifest("d", "v1")
    assert cache.read(path) == trees["v1"]["dir1/f1"]
    assert_nothing_is_left(site, cache)
    assert cache.status()["blocks"] == 2 * (FILES + 1)


Dying = Callable[..., Any]


def die_at(owner: type, name: str, *, before: bool) -> None:
    """Let this process be killed when it calls a method, or when that is about to return."""
    method: Dying = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        if not before:
            method(*arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, call)


STEPS: list[tuple[type, str]] = [
    (Versions, "new_number"),
    (ManifestFiles, "build"),
    (ManifestBuilder, "add"),
    (ManifestBuilder, "finish"),
    (Versions, "add"),
    (Catalog, "back_up"),
    (ManifestBuilder, "keep"),
]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("owner", "name"), STEPS)
def test_killed_at_each_step_of_making_one(
    site: Site, cache: Cache, owner: type, name: str, before: bool
) -> None:
    site.write(tree_of("a"))
    cache.load("d", manifest="v1", wait=True)
    text = io.BytesIO()
    cache.export_manifest("d", "v1", text)

    def body(link: Connection) -> None:
        with site.open() as cache:
            die_at(owner, name, before=before)
            cache.import_manifest("d", "v2", io.BytesIO(text.getvalue()), use=True)

    with Child(body) as child:
        assert child.exit_code() == -signal.SIGKILL
    is_made = "v2" in versions_of(cache)
    assert is_made == (
        name in ("back_up", "keep") or (owner is Versions and (name, before) == ("add", False))
    )
    assert in_use(cache) == ("v2" if is_made else "v1")
    assert everything(cache, "d") == tree_of("a")
    assert_nothing_is_left(site, cache)
    if not is_made:
        assert cache.import_manifest("d", "v2", io.BytesIO(text.getvalue())).objects == FILES


RETIRING: list[tuple[type, str]] = [
    (Versions, "delete"),
    (Reclaimer, "drop"),
    (ManifestFiles, "remove"),
    (Versions, "remove"),
]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("owner", "name"), RETIRING)
def test_killed_at_each_step_of_deleting_one(
    site: Site, cache: Cache, owner: type, name: str, before: bool
) -> None:
    for version in ("v1", "v2"):
        site.write(tree_of(version))
        cache.load("d", manifest=version, wait=True)

    def body(link: Connection) -> None:
        with site.open() as cache:
            die_at(owner, name, before=before)
            cache.delete_manifest("d", "v1")

    with Child(body) as child:
        assert child.exit_code() == -signal.SIGKILL
    if (name, before) == ("delete", True):
        cache.delete_manifest("d", "v1")
    assert versions_of(cache) == ["v2"]
    assert everything(cache, "d") == tree_of("v2")
    assert_nothing_is_left(site, cache)
    assert cache.status()["blocks"] == FILES
