"""What a mount shows when objects change, disappear, or another version of the dataset is put in use."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest

from forebay.cache import Cache
from tests._s3 import BUCKET, FakeS3, give_keys
from tests.fuse._mount import errno_of, until
from tests.fuse.conftest import BLOCK_BYTES, Mounting


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """A server whose objects all have the same time, whatever their version."""
    give_keys(monkeypatch)
    with FakeS3() as storage:
        storage.objects |= {"a": b"1" * 10, "sub/b": b"2" * 10, "long": os.urandom(8 * BLOCK_BYTES)}
        yield storage


@pytest.fixture
def attach(cache: Cache, storage: FakeS3) -> Callable[..., Cache]:
    def attach(max_age: float | None) -> Cache:
        cache.attach("d", f"s3://{BUCKET}", endpoint_url=storage.url, max_age=max_age)
        return cache

    return attach


def test_another_version_of_the_same_size_and_time(
    attach: Callable[..., Cache], storage: FakeS3, mounted: Mounting
) -> None:
    attach(max_age=0)
    path = mounted().path / "a"
    for _ in range(2):
        assert path.read_bytes() == b"1" * 10
    storage.objects["a"] = b"x" * 10
    assert path.read_bytes() == b"x" * 10


def test_a_longer_and_a_shorter_version(
    attach: Callable[..., Cache], storage: FakeS3, mounted: Mounting
) -> None:
    attach(max_age=0)
    path = mounted().path / "a"
    for length in (10, 100_000, 3, 0, 70_000):
        storage.objects["a"] = os.urandom(length)
        assert path.read_bytes() == storage.objects["a"]
        assert path.stat().st_size == length


def test_what_is_gone_and_what_is_new(
    attach: Callable[..., Cache], storage: FakeS3, mounted: Mounting
) -> None:
    attach(max_age=0)
    path = mounted().path
    assert sorted(os.listdir(path)) == ["a", "long", "sub"]
    del storage.objects["a"]
    storage.objects |= {"new/c": b"3", "new/d": b"4"}
    assert sorted(os.listdir(path)) == ["long", "new", "sub"]
    assert errno_of((path / "a").read_bytes) == errno.ENOENT
    assert (path / "new/c").read_bytes() == b"3"


def test_a_file_that_is_open_keeps_to_its_version(
    attach: Callable[..., Cache], storage: FakeS3, mounted: Mounting
) -> None:
    cache = attach(max_age=0)
    path, old = mounted().path / "long", storage.objects["long"]
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100, 0) == old[:100]
        storage.objects["long"] = os.urandom(len(old))
        # Not cached so far, and no longer to be had.
        assert errno_of(lambda: os.pread(file.fileno(), 100, 6 * BLOCK_BYTES)) == errno.ESTALE
        assert cache.stat("d/long").version
        assert path.read_bytes() == storage.objects["long"]


def test_what_never_changes_is_forgotten_when_it_did(
    attach: Callable[..., Cache], storage: FakeS3, mounted: Mounting
) -> None:
    cache = attach(max_age=None)
    path = mounted().path
    assert (path / "sub/b").read_bytes() == b"2" * 10
    assert (path / "a").stat().st_size == 10
    storage.objects["sub/b"] = b"another"
    del storage.objects["a"]
    cache.sync("d")
    until(lambda: not (path / "a").exists())
    until(lambda: (path / "sub/b").stat().st_size == 7)
    assert (path / "sub/b").read_bytes() == b"another"


def test_another_manifest_is_followed(
    attach: Callable[..., Cache], storage: FakeS3, mounted: Mounting
) -> None:
    cache = attach(max_age=None)
    cache.create_manifest("d", "one")
    cache.use_manifest("d", "one")
    following, fixed = mounted().path, mounted(what="d@one").path
    for path in (following, fixed):
        assert ((path / "a").read_bytes(), sorted(os.listdir(path))) == (b"1" * 10, ["a", "long", "sub"])
    storage.objects["a"] = b"another"
    storage.objects["new"] = b"new"
    cache.create_manifest("d", "two")
    assert not (following / "new").exists()
    cache.use_manifest("d", "two")
    until(lambda: (following / "a").stat().st_size == 7)
    assert (following / "a").read_bytes() == b"another"
    assert "new" in os.listdir(following)
    assert (fixed / "a").read_bytes() == b"1" * 10
    assert "new" not in os.listdir(fixed)


def test_what_was_forgotten_is_found_again(attach: Callable[..., Cache], mounted: Mounting) -> None:
    cache = attach(max_age=None)
    path = mounted().path
    before = (path / "a").stat().st_ino
    cache.free("d", metadata=True)
    until(lambda: (path / "a").stat().st_ino != before)
    assert (path / "a").read_bytes() == b"1" * 10
