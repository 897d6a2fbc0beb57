"""Manifests against a dictionary: any order of making, switching, deleting, and changes of the source."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.errors import ConfigError, ManifestNotFound, NotFound, Stale
from forebay.testing.faulty import FaultyStorage

# Directories that are objects as well, and one name in two places.
PATHS = ["a", "a/b", "d/a", "d/e"]
VERSIONS = ["v1", "v2", "v3"]

paths = st.sampled_from(PATHS)
versions = st.sampled_from(VERSIONS)
which = st.integers(0, 1)
changes = st.dictionaries(paths, st.booleans(), min_size=1)

# Path -> whether it is put or removed.
Changes = dict[str, bool]
# Path -> (bytes, number of the version).
Shown = dict[str, tuple[bytes, int]]
# A directory, the names of directories in it, and those of objects.
Walked = tuple[str, list[str], list[str]]


class ManifestMachine(RuleBasedStateMachine):
    """Two users of one cache directory, each with look-ups of its own, and what they must agree on."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="forebay-manifests-", dir="/dev/shm"))
        self.storage = FaultyStorage()
        self.source: Shown = {}
        self.puts = 0
        self.manifests: dict[str, Shown] = {}
        self.loaded: dict[str, set[str]] = {}
        self.in_use: str | None = None
        self.before: str | None = None
        # Who is in the middle of a walk, what he has seen of it, and what he is to have seen at its end.
        self.walks: list[tuple[Iterator[Walked], list[str], Shown]] = []

    @initialize(
        manifest_only=st.booleans(),
        max_age=st.sampled_from([None, 0, 60]),
        histories=st.lists(changes, min_size=2, max_size=2),
    )
    def begin(self, manifest_only: bool, max_age: float | None, histories: list[Changes]) -> None:
        """Begin with two versions, so that there is something to switch."""
        self.manifest_only = manifest_only
        tiers = [Tier(str(self.folder / "tier"), 64 * MIB, "MEM")]
        self.caches = [
            Cache(self.folder / "cache", tiers, block_bytes=64 * KIB, schemes=self.storage.schemes())
            for _ in range(2)
        ]
        self.caches[0].attach("d", "faulty://x", max_age=max_age, manifest_only=manifest_only)
        for version, history in zip(VERSIONS, histories, strict=False):
            self.make(0, version, True, True, "", history)

    def teardown(self) -> None:
        try:
            for cache in getattr(self, "caches", []):
                assert cache.check().ok
                cache.close()
            left = [path.name for path in (self.folder / "cache/v1/meta/manifests").rglob("*.lmdb")]
            assert len(left) == len(self.manifests), left
        finally:
            shutil.rmtree(self.folder)

    def change(self, history: Changes) -> None:
        """Put or remove objects of the source."""
        for path, is_there in history.items():
            if is_there:
                self.puts += 1
                data = f"{path} {self.puts}".encode() * (self.puts % 3)
                self.storage.put(path, data)
                self.source[path] = (data, self.puts)
            elif self.source.pop(path, None) is not None:
                self.storage.remove(path)

    @rule(
        by=which,
        version=versions,
        use=st.booleans(),
        with_data=st.booleans(),
        part=st.sampled_from(["", "", "/a"]),
        history=changes,
    )
    def make(self, by: int, version: str, use: bool, with_data: bool, part: str, history: Changes) -> None:
        """Make a version of the source, or of a part of it, after it has changed."""
        self.change(history)
        cache, target = self.caches[by], f"d{part}"
        if version in self.manifests:
            with pytest.raises(ConfigError, match="already"):
                cache.load(target, manifest=version)
            return
        listed = {path: shown for path, shown in self.source.items() if not part or path[:2] in ("a", "a/")}
        job = cache.load(target, manifest=version, use_manifest=use, metadata_only=not with_data)
        if part and not listed:
            assert job.wait().state == "failed"
            return
        assert job.wait().ok, job.result()
        self.made(version, listed, set(listed) if with_data else set(), use)

    @rule(by=which, version=versions, of=versions, ordered=st.booleans(), use=st.booleans())
    def carry(self, by: int, version: str, of: str, ordered: bool, use: bool) -> None:
        if of not in self.manifests or version in self.manifests:
            return
        with tempfile.TemporaryFile() as file:
            self.caches[by].export_manifest("d", of, file)
            file.seek(0)
            self.caches[1 - by].import_manifest("d", version, file, ordered=ordered, use=use)
        self.made(version, self.manifests[of], set(self.loaded[of]), use)

    def made(self, version: str, listed: Shown, loaded: set[str], use: bool) -> None:
        self.manifests[version], self.loaded[version] = listed, loaded
        if use:
            self.switch(version)

    def switch(self, version: str | None) -> None:
        if version != self.in_use:
            self.before, self.in_use = self.in_use, version

    @rule(by=which, version=st.none() | versions)
    def use(self, by: int, version: str | None) -> None:
        if version is not None and version not in self.manifests:
            with pytest.raises(ManifestNotFound):
                self.caches[by].use_manifest("d", version)
            return
        self.caches[by].use_manifest("d", version)
        self.switch(version)

    @rule(by=which)
    def roll_back(self, by: int) -> None:
        if self.before is None:
            with pytest.raises(ConfigError, match="no earlier"):
                self.caches[by].rollback("d")
            return
        assert self.caches[by].rollback("d") == self.before
        self.switch(self.before)

    @rule(by=which, version=versions)
    def delete(self, by: int, version: str) -> None:
        if version not in self.manifests:
            with pytest.raises(ManifestNotFound):
                self.caches[by].delete_manifest("d", version)
        elif version == self.in_use:
            with pytest.raises(ConfigError, match="in use"):
                self.caches[by].delete_manifest("d", version)
        else:
            self.caches[by].delete_manifest("d", version)
            del self.manifests[version], self.loaded[version]
            self.before = None if self.before == version else self.before

    @rule(by=which, version=st.none() | versions)
    def begin_a_walk(self, by: int, version: str | None) -> None:
        """Of a version, or of what is shown now; None where that is the source."""
        shown = version or self.in_use
        if shown is not None and shown in self.manifests:
            walk = self.caches[by].walk(f"d@{version}" if version else "d")
            self.walks.append((walk, paths_of([next(walk)]), self.manifests[shown]))

    @rule()
    def end_the_walks(self) -> None:
        """Each has seen one version, whatever was switched, deleted or changed meanwhile."""
        for walk, seen, listed in self.walks:
            seen += paths_of(walk)
            assert sorted(seen) == sorted(listed)
        self.walks.clear()

    @rule(by=which)
    def load_what_is_shown(self, by: int) -> None:
        self.caches[by].load("d", wait=True)

    @rule(by=which, path=paths)
    def free(self, by: int, path: str) -> None:
        """Only what is loaded nowhere, so that what is loaded is known to be cached."""
        if not any(path in loaded for loaded in self.loaded.values()) and not any(
            other.startswith(f"{path}/") for loaded in self.loaded.values() for other in loaded
        ):
            self.caches[by].free(f"d/{path}", metadata=True)

    @invariant()
    def all_is_shown_as_it_should(self) -> None:
        for cache in getattr(self, "caches", []):
            found = {each.version: each for each in cache.manifests("d")}
            assert found.keys() == self.manifests.keys()
            for version, listed in self.manifests.items():
                each = found[version]
                sizes = [len(data) for data, _ in listed.values()]
                assert (each.objects, each.bytes) == (len(sizes), sum(sizes))
                assert each.is_in_use == (version == self.in_use)
                assert each.is_before == (version == self.before)
                self.check_shown(cache, f"d@{version}", listed, self.loaded[version])
            if self.in_use is not None:
                self.check_shown(cache, "d", self.manifests[self.in_use], self.loaded[self.in_use])
            elif self.manifest_only:
                self.check_shown(cache, "d", {}, set())

    def check_shown(self, cache: Cache, label: str, listed: Shown, loaded: set[str]) -> None:
        """Look at it by all means; only what is not cached is asked for, and nothing is listed."""
        self.storage.calls.clear()
        walked = [f"{directory}/{name}" for directory, _, names in cache.walk(label) for name in names]
        assert sorted(walked) == sorted(f"{label}/{path}" for path in listed)
        for path in PATHS:
            if path in listed:
                data, number = listed[path]
                status = cache.stat(f"{label}/{path}")
                assert (status.size, status.version, status.is_dir) == (len(data), f"v{number}", False)
                self.check_read(cache, f"{label}/{path}", data, must=path in loaded or not data)
            elif any(other.startswith(f"{path}/") for other in listed):
                assert cache.stat(f"{label}/{path}").is_dir
            else:
                with pytest.raises(NotFound):
                    cache.stat(f"{label}/{path}")
                with pytest.raises(NotFound):
                    cache.read(f"{label}/{path}")
        assert {"list", "stat"}.isdisjoint(self.storage.calls)

    def check_read(self, cache: Cache, path: str, data: bytes, *, must: bool) -> None:
        reads = self.storage.calls["read_range"]
        try:
            assert cache.read(path) == data
        except Stale:
            assert not must
            assert self.source.get(path.partition("/")[2], (b"", 0))[0] != data
        assert not must or self.storage.calls["read_range"] == reads


def paths_of(walked: Iterable[Walked]) -> list[str]:
    """Return the paths of the objects, without the dataset's name."""
    return [f"{directory}/{name}".partition("/")[2] for directory, _, names in walked for name in names]


def test_manifests_against_a_dictionary() -> None:
    run_state_machine_as_test(
        ManifestMachine, settings=settings(max_examples=30, stateful_step_count=12, deadline=None)
    )
