"""Manifests through the cache: what is shown, when it is switched, what is asked of the under storage."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache, SyncReport
from forebay.config import KIB
from forebay.errors import ConfigError, ManifestNotFound, NotAttached, NotFound, Stale
from forebay.testing.clock import ManualClock
from forebay.testing.faulty import FaultyStorage
from tests._s3 import BUCKET, FakeS3, give_keys
from tests.integration._sites import OpenCache
from tests.integration._trees import TREE, everything

BLOCK = 64 * KIB


def test_a_load_with_a_manifest_shows_what_it_loaded(cache: Cache, storage: FaultyStorage) -> None:
    result = cache.load("d", manifest="v1").wait()
    assert result.ok
    (status,) = cache.manifests("d")
    assert (status.version, status.objects, status.bytes) == ("v1", 5, sum(map(len, TREE.values())))
    assert (status.source, status.is_in_use, status.is_ordered) == ("d", True, False)
    storage.calls.clear()
    storage.put("new", b"6")
    storage.remove("a")
    # Though the dataset is to be checked at every use, nobody is asked.
    assert everything(cache, "d") == TREE
    assert cache.stat("d/sub/c").size == 3
    assert cache.listdir("d") == ["a", "sub", "z"]
    assert [status.path for status in cache.scandir("d/sub")] == ["d/sub/b", "d/sub/c", "d/sub/deep"]
    assert cache.usage("d").cached_bytes == status.bytes
    assert [bytes(view) for view in cache.read_many(["d/a", "d/sub/b"])] == [b"1", b"22"]
    assert storage.calls == {}


def test_a_part_of_a_dataset_may_be_a_version(cache: Cache) -> None:
    cache.load("d/sub", manifest="sub", wait=True)
    assert sorted(everything(cache, "d")) == ["sub/b", "sub/c", "sub/deep/d"]
    cache.load("d", glob="**/[be]", manifest="glob", wait=True)
    assert sorted(everything(cache, "d")) == ["sub/b", "z/e"]
    cache.load("d", files=["a", "sub/deep/d", "a"], manifest="list", wait=True)
    assert sorted(everything(cache, "d")) == ["a", "sub/deep/d"]
    cache.load("d@sub", glob="**/b", manifest="part", wait=True)
    assert sorted(everything(cache, "d")) == ["sub/b"]
    assert [(each.version, each.source, each.objects) for each in cache.manifests("d")] == [
        ("sub", "d/sub", 3),
        ("glob", "d, glob **/[be]", 2),
        ("list", "d, a file list", 2),
        ("part", "d@sub, glob **/b", 1),
    ]


def test_a_load_that_is_not_done_shows_nothing(cache: Cache, storage: FaultyStorage) -> None:
    cache.load("d", manifest="v1", wait=True)
    storage.put("bad", b"7")
    storage.script("read_range", PermissionError("no"))
    job = cache.load("d", manifest="v2")
    assert job.wait().state == "incomplete"
    assert [each.version for each in cache.manifests("d")] == ["v1"]
    assert not cache.exists("d/bad")
    job = cache.load("d", files=["a", "none"], manifest="v2")
    assert job.wait().state == "incomplete"
    assert [each.version for each in cache.manifests("d")] == ["v1"]
    # Gone on with when the fault is over, it does what it was to do.
    assert cache.resume(job.id).wait().state == "incomplete"
    storage.put("none", b"8")
    assert cache.resume(job.id).wait().ok
    assert everything(cache, "d") == {"a": b"1", "none": b"8"}
    assert cache.resume(job.id).wait().ok


def test_manifest_only_shows_nothing_without_a_manifest(
    open_cache: OpenCache, storage: FaultyStorage
) -> None:
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", manifest_only=True)
    storage.calls.clear()
    assert cache.listdir("d") == []
    assert list(cache.walk("d")) == [("d", [], [])]
    assert cache.stat("d").is_dir
    assert cache.sync("d") == SyncReport()
    assert cache.load("d").wait().progress.files_total == 0
    for path in ("d/a", "d/sub", "d/none"):
        for act in (cache.stat, cache.read, cache.open, cache.listdir, cache.sync):
            with pytest.raises(NotFound, match="shows no more than a manifest, and has none"):
                act(path)
    assert storage.calls == {}
    cache.load("d", manifest="v1", wait=True)
    assert everything(cache, "d") == TREE
    cache.use_manifest("d", None)
    assert cache.listdir("d") == []
    # Attached without it, it shows what there is.
    cache.attach("d", "faulty://x")
    assert cache.listdir("d") == ["a", "sub", "z"]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    give_keys(monkeypatch)
    with FakeS3() as server:
        server.objects.update(TREE)
        yield server


def test_what_is_not_listed_reaches_no_server(open_cache: OpenCache, server: FakeS3) -> None:
    cache = open_cache()
    cache.attach("d", f"s3://{BUCKET}", endpoint_url=server.url, max_age=0, manifest_only=True)
    cache.load("d", files=["a", "sub/b"], manifest="v1", wait=True)
    server.requests.clear()
    buffer = bytearray(10)
    hidden = ["d/z/e", "d/sub/c", "d/sub/deep", "d/none", "d/a/b", "d@v1/z/e"]
    for path in hidden:
        assert not cache.exists(path)
        for act in (
            cache.stat,
            cache.read,
            cache.open,
            cache.listdir,
            cache.scandir,
            cache.sync,
            cache.usage,
            lambda path: cache.readinto(path, buffer),
            lambda path: cache.read_many(["d/a", path]),
            lambda path: list(cache.walk(path)),
            lambda path: list(cache.views(path)),
        ):
            with pytest.raises(NotFound, match="is not in manifest 'v1'"):
                act(path)
        assert cache.load(path).wait().state == "failed"
        cache.free(path, metadata=True)
    job = cache.load("d", files=[path.partition("/")[2] for path in hidden])
    assert job.wait().progress.files_failed == len(hidden)
    assert {result.error for result in job.results()} == {"is not in manifest 'v1'"}
    # What is listed is asked for neither, as long as it is cached.
    assert cache.listdir("d") == ["a", "sub"]
    assert everything(cache, "d") == {"a": b"1", "sub/b": b"22"}
    assert cache.load("d", verify=True).wait().progress.files_skipped == 2
    assert server.requests == []
    # And when it is not, by the version that is listed.
    cache.free("d/a")
    assert cache.read("d/a") == b"1"
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", f"/{BUCKET}/a")
    assert request.headers["If-Match"]


def test_an_older_version_is_read_by_its_name(cache: Cache, storage: FaultyStorage) -> None:
    cache.load("d", manifest="v1", wait=True)
    storage.put("a", b"one")
    storage.put("new", b"6")
    storage.remove("z/e")
    newer = TREE | {"a": b"one", "new": b"6"}
    del newer["z/e"]
    cache.load("d", manifest="v2", wait=True)
    storage.calls.clear()
    assert everything(cache, "d") == everything(cache, "d@v2") == newer
    # Its bytes were not reclaimed, though the source has newer ones.
    assert everything(cache, "d@v1") == TREE
    assert cache.stat("d@v1/a").path == "d@v1/a"
    assert [each.path for each in cache.scandir("d@v1/z")] == ["d@v1/z/e"]
    with cache.open("d@v1/a") as file:
        assert (file.name, file.read()) == ("d@v1/a", b"1")
    assert cache.usage("d@v1").objects == 5
    assert storage.calls == {}
    for label in ("d@v3", "d@", "d@v1@v1"):
        with pytest.raises(ManifestNotFound, match="has no manifest"):
            cache.stat(f"{label}/a")
    with pytest.raises(NotAttached, match="no dataset 'e'"):
        cache.stat("e@v1/a")
    with pytest.raises(ConfigError, match="dataset name 'd@v1'"):
        cache.attach("d@v1", "faulty://x")


def test_rollback_is_seen_at_once_by_everybody(
    open_cache: OpenCache, cache: Cache, storage: FaultyStorage
) -> None:
    other = open_cache(schemes=storage.schemes(), clock=ManualClock())
    cache.load("d", manifest="v1", wait=True)
    storage.put("a", b"one")
    cache.load("d", manifest="v2", wait=True)
    for version, data in (("v2", b"one"), ("v1", b"1"), ("v2", b"one"), ("v1", b"1")):
        for each in (cache, other, cache, other):
            assert each.read("d/a") == data
            assert each.stat("d/a").size == len(data)
        assert cache.rollback("d") == ("v1" if version == "v2" else "v2")
    assert everything(other, "d") == TREE | {"a": b"one"}


def test_who_is_in_the_middle_goes_on_with_what_he_began(cache: Cache, storage: FaultyStorage) -> None:
    storage.put("big", b"x" * (3 * BLOCK))
    cache.load("d", manifest="v1", wait=True)
    for name in (*TREE, "big"):
        storage.put(name, b"y" * (2 * BLOCK if name == "big" else 9))
    storage.put("sub/new", b"6")
    cache.create_manifest("d", "v2")
    walk = cache.walk("d")
    views = cache.views("d/big")
    file = cache.open("d/big")
    assert file.read(1) == b"x"
    seen = [next(walk)]
    assert bytes(next(views)) == b"x" * BLOCK
    cache.use_manifest("d", "v2")
    seen += walk
    assert [names for _, _, names in seen] == [["a", "big"], ["b", "c"], ["d"], ["e"]]
    assert b"".join(bytes(view) for view in views) == b"x" * 2 * BLOCK
    assert file.read() == b"x" * (3 * BLOCK - 1)
    file.close()
    assert cache.read("d/big") == b"y" * 2 * BLOCK
    assert cache.listdir("d/sub") == ["b", "c", "deep", "new"]


def test_an_open_file_keeps_its_version_in_a_child_too(cache: Cache, storage: FaultyStorage) -> None:
    storage.put("big", b"x" * 3 * BLOCK)
    cache.load("d", manifest="v1", wait=True)
    storage.put("big", b"y" * 3 * BLOCK)
    cache.create_manifest("d", "v2")
    with cache.open("d/big") as file:
        assert file.read(1) == b"x"
        cache.use_manifest("d", "v2")
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if file.read() == b"x" * (3 * BLOCK - 1) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_version_that_is_nowhere_any_more_is_stale(cache: Cache, storage: FaultyStorage) -> None:
    storage.put("big", b"x" * 3 * BLOCK)
    cache.create_manifest("d", "v1", use=True)
    storage.put("a", b"one")
    storage.put("big", b"y" * 3 * BLOCK)
    storage.remove("z/e")
    storage.calls.clear()
    words = "the version that manifest 'v1' lists is not cached"
    for path in ("d/a", "d/z/e", "d/big"):
        for act in (cache.read, lambda path: cache.read_many([path]), lambda path: list(cache.views(path))):
            with pytest.raises(Stale, match=words) as caught:
                act(path)
            assert caught.value.filename == path
        with cache.open(path) as file, pytest.raises(Stale, match=words):
            file.read()
        # It is listed all the same.
        assert cache.exists(path)
    job = cache.load("d")
    assert job.wait().progress.files_failed == 3
    assert all(words in (result.error or "") for result in job.results())
    assert {"stat", "list"}.isdisjoint(storage.calls)
    assert cache.read("d/sub/b") == b"22"


def test_sync_tells_how_the_source_differs(cache: Cache, storage: FaultyStorage) -> None:
    cache.create_manifest("d", "v1", use=True)
    assert cache.sync("d") == SyncReport()
    storage.put("a", b"one")
    storage.put("sub/new", b"6")
    storage.put("more/new", b"7")
    storage.remove("z/e")
    assert cache.sync("d") == SyncReport(added=2, changed=1, removed=1)
    assert cache.sync("d/sub") == SyncReport(added=1)
    assert cache.sync("d/a") == SyncReport(changed=1)
    assert cache.sync("d/z") == cache.sync("d/z/e") == SyncReport(removed=1)
    assert cache.sync("d@v1/sub/b") == SyncReport()
    # What is shown stays what it is.
    assert cache.stat("d/a").size == 1
    assert not cache.exists("d/sub/new")


def test_free_drops_what_is_shown(cache: Cache, storage: FaultyStorage) -> None:
    cache.load("d", manifest="v1", wait=True)
    storage.put("a", b"one")
    cache.load("d", manifest="v2", wait=True)
    assert cache.status()["blocks"] == 6
    cache.free("d@v1/a")
    assert cache.status()["blocks"] == 5
    cache.free("d@v1")
    assert cache.status()["blocks"] == 1
    assert cache.read("d/a") == b"one"
    cache.load("d", wait=True)
    cache.free("d/sub")
    assert cache.status()["blocks"] == 2
    cache.free("d", metadata=True)
    assert cache.status()["blocks"] == 0
    assert cache.listdir("d") == ["a", "sub", "z"]


def test_deleting_drops_what_nothing_else_needs(cache: Cache, storage: FaultyStorage) -> None:
    storage.put("big", b"x" * 3 * BLOCK)
    cache.load("d", manifest="v1", wait=True)
    for name in ("a", "big", "sub/b"):
        storage.put(name, b"new " + name.encode())
    cache.load("d", manifest="v2", wait=True)
    storage.put("a", b"newer")
    cache.load("d", manifest="v3", wait=True)
    assert cache.status()["blocks"] == 8 + 3 + 1
    with pytest.raises(ConfigError, match="is in use"):
        cache.delete_manifest("d", "v3")
    cache.delete_manifest("d", "v1")
    assert cache.status()["blocks"] == 6 + 1
    storage.calls.clear()
    assert cache.read("d@v2/a") == b"new a"
    assert cache.read("d/big") == b"new big"
    assert storage.calls == {}
    cache.delete_manifest("d", "v2")
    assert cache.status()["blocks"] == 6
    with pytest.raises(ManifestNotFound):
        cache.read("d@v2/a")
    assert [each.version for each in cache.manifests("d")] == ["v3"]
    assert cache.check().ok


def test_a_deleted_version_can_be_made_anew(cache: Cache, storage: FaultyStorage) -> None:
    cache.create_manifest("d", "v1")
    assert cache.stat("d@v1/a").size == 1
    cache.delete_manifest("d", "v1")
    storage.put("a", b"one")
    cache.create_manifest("d", "v1")
    assert cache.stat("d@v1/a").size == 3


def test_detaching_removes_the_files(cache: Cache, tmp_path: Path) -> None:
    cache.load("d", manifest="v1", wait=True)
    assert len(list((tmp_path / "cache/v1/meta/manifests").rglob("*.lmdb"))) == 1
    cache.detach("d")
    assert list((tmp_path / "cache/v1/meta/manifests").iterdir()) == []
    cache.attach("d", "faulty://x")
    assert cache.manifests("d") == []
    assert cache.listdir("d") == ["a", "sub", "z"]


def test_a_directory_and_an_object_of_one_name(open_cache: OpenCache) -> None:
    storage = FaultyStorage({"a": b"1", "a/b": b"22"})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x")
    cache.load("d", manifest="v1", wait=True)
    assert (cache.stat("d/a").is_dir, cache.listdir("d"), cache.listdir("d/a")) == (False, ["a"], ["b"])
    assert everything(cache, "d") == {"a": b"1", "a/b": b"22"}
    with pytest.raises(IsADirectoryError):
        cache.read("d")
    with pytest.raises(NotADirectoryError):
        cache.listdir("d/a/b")


def test_reading_a_directory_says_so(cache: Cache) -> None:
    cache.create_manifest("d", "v1", use=True)
    for act in (cache.read, cache.open, lambda path: cache.read_many([path])):
        with pytest.raises(IsADirectoryError):
            act("d/sub")
    with pytest.raises(NotADirectoryError):
        cache.listdir("d/a")


@pytest.mark.parametrize("version", ["", "a/b", ".v", "ü", "x" * 129, "v@1"])
def test_bad_names_are_refused(cache: Cache, version: str) -> None:
    with pytest.raises(ConfigError, match=r"manifest .*: use 1 to 128 letters"):
        cache.load("d", manifest=version)
    with pytest.raises(ConfigError, match=r"manifest .*: use 1 to 128 letters"):
        cache.import_manifest("d", version, io.BytesIO())
    assert cache.jobs() == []


def test_a_version_is_made_once(cache: Cache) -> None:
    cache.create_manifest("d", "v1")
    with pytest.raises(ConfigError, match="has a manifest 'v1' already"):
        cache.load("d", manifest="v1")
    with pytest.raises(ConfigError, match="has a manifest 'v1' already"):
        cache.import_manifest("d", "v1", io.BytesIO())
    with pytest.raises(ValueError, match="dry run"):
        cache.load("d", manifest="v2", dry_run=True)


def test_creating_says_what_is_missing(cache: Cache) -> None:
    with pytest.raises(OSError, match="'v1' was not made: of 2 files 1 failed; see `forebay jobs show"):
        cache.create_manifest("d", "v1", files=["a", "none"])
    with pytest.raises(OSError, match=r"'v1' was not made: .*no such object"):
        cache.create_manifest("d/none", "v1")
    assert cache.manifests("d") == []


def test_what_is_shown_outlives_the_entries(
    open_cache: OpenCache, storage: FaultyStorage, tmp_path: Path
) -> None:
    """As after a reboot: what was known of the objects is gone, a manifest is not."""
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    cache.load("d", manifest="v1", wait=True)
    cache.close()
    for path in (tmp_path / "cache/v1/meta").glob("entries-*"):
        path.unlink()
    again = open_cache(schemes=storage.schemes())
    storage.calls.clear()
    assert everything(again, "d") == TREE
    assert storage.calls == {}


def test_a_manifest_whose_file_is_gone_hides_nothing(
    open_cache: OpenCache, storage: FaultyStorage, tmp_path: Path
) -> None:
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    for version in ("v1", "v2"):
        cache.load("d", manifest=version, wait=True)
    cache.close()
    (tmp_path / "cache/v1/meta/manifests/1/2-v2.lmdb").unlink()
    again = open_cache(schemes=storage.schemes())
    for act in (again.read, again.exists, again.listdir):
        with pytest.raises(ConfigError, match=r"2-v2\.lmdb: is gone; use another version"):
            act("d/a")
    assert everything(again, "d@v1") == TREE
    assert again.rollback("d") == "v1"
    assert everything(again, "d") == TREE
    again.delete_manifest("d", "v2")


def test_a_cache_that_may_only_be_read_shows_manifests(open_cache: OpenCache, storage: FaultyStorage) -> None:
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    cache.load("d", manifest="v1", wait=True)
    reader = open_cache(schemes=storage.schemes(), read_only=True)
    assert everything(reader, "d@v1") == everything(reader, "d") == TREE
    with pytest.raises(PermissionError, match="read only"):
        reader.use_manifest("d", None)
    with pytest.raises(PermissionError, match="read only"):
        reader.rollback("d")
