"""Writes through the cache: what is at the under storage, and what every process knows of it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB
from forebay.errors import (
    NotFound,
    Stale,
    UnderStorageError,
)
from forebay.testing.s3 import S3Server
from tests._moto import begin_anew, moto_server
from tests._s3 import give_keys
from tests.integration._sites import OpenCache, counters

BLOCK = 64 * KIB
SIZES = [0, 1, BLOCK, 3 * BLOCK + 7, 9 * MIB]


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(params=["file", "moto", "rclone"])
def attach(
    request: pytest.FixtureRequest, tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Attach a place that can be written as ``d``, the same for every cache."""
    if request.param == "file":
        (tmp_path / "source").mkdir()
        yield partial(attach_to, uri=(tmp_path / "source").as_uri())
    elif request.param == "moto":
        give_keys(monkeypatch)
        begin_anew()
        yield partial(attach_to, uri="s3://bucket/new", endpoint_url=moto, attempts=2)
    else:
        (tmp_path / "buckets/bucket").mkdir(parents=True)
        with S3Server(tmp_path / "buckets") as server:
            for name, value in server.environ().items():
                monkeypatch.setenv(name, value)
            url = server.endpoint_url
            yield partial(attach_to, uri="s3://bucket/new", endpoint_url=url, attempts=2)


def attach_to(cache: Cache, uri: str, **options: Any) -> None:
    cache.attach("d", uri, **{"writable": True, "max_age": None, **options})


def test_what_is_put_is_read_by_every_process(open_cache: OpenCache, attach: Callable[..., None]) -> None:
    cache, other = open_cache(), open_cache()
    attach(cache)
    for size in SIZES:
        for path in (f"d/{size}", f"d/dir/sub/{size}"):
            data = os.urandom(size)
            status = cache.put(path, data)
            assert (status.path, status.size) == (path, size)
            assert (other.stat(path), bytes(other.read(path))) == (status, data)
            assert bytes(cache.read(path)) == data
    names = sorted(map(str, SIZES))
    assert (other.listdir("d"), cache.listdir("d/dir/sub")) == ([*names, "dir"], names)
    (dataset,) = [each for each in cache.status()["datasets"].values() if each["name"] == "d"]
    assert dataset["counters"]["writes"] == counters(cache)["writes"] == 2 * len(SIZES)
    assert counters(cache)["write_bytes"] == 2 * sum(SIZES)
    assert counters(cache)["write_errors"] == 0


def test_what_is_written_by_a_file(open_cache: OpenCache, attach: Callable[..., None]) -> None:
    cache = open_cache()
    attach(cache)
    for size in SIZES:
        data = os.urandom(size)
        with cache.open(f"d/{size}", "wb") as file:
            for start in range(0, size, 300_000):
                assert file.write(data[start : start + 300_000]) == len(data[start : start + 300_000])
            assert file.tell() == size
            assert not cache.exists(f"d/{size}")
        assert bytes(cache.read(f"d/{size}")) == data
    assert cache.status()["staging"]["bytes"] == 0


def test_listings_follow(open_cache: OpenCache, attach: Callable[..., None]) -> None:
    """Those that are remembered are right at once, without being asked for again."""
    cache, other = open_cache(), open_cache()
    attach(cache)
    cache.put("d/a/one", b"1")
    assert (other.listdir("d"), other.listdir("d/a")) == (["a"], ["one"])
    cache.put("d/a/two", b"2")
    cache.put("d/b/deep/three", b"3")
    assert (other.listdir("d"), other.listdir("d/a")) == (["a", "b"], ["one", "two"])
    assert (other.listdir("d/b"), other.listdir("d/b/deep")) == (["deep"], ["three"])
    other.delete("d/a/one")
    assert cache.listdir("d/a") == ["two"]
    other.rename("d/a/two", "d/c/two")
    assert cache.listdir("d/c") == ["two"]
    assert [path for path, _, objects in cache.walk("d") if objects] == ["d/b/deep", "d/c"]


def test_versions_that_were_replaced_are_gone(open_cache: OpenCache, attach: Callable[..., None]) -> None:
    cache, other = open_cache(), open_cache()
    attach(cache)
    cache.put("d/a", b"old")
    file, view = other.open("d/a"), other.read("d/a")
    blocks = other.status()["blocks"]
    cache.put("d/a", b"newer")
    assert (bytes(other.read("d/a")), other.stat("d/a").size) == (b"newer", 5)
    with pytest.raises(Stale):
        file.read()
    assert bytes(view) == b"old"
    deadline = time.monotonic() + 30
    while other.status()["blocks"] > blocks and time.monotonic() < deadline:
        time.sleep(0.01)
    assert other.status()["blocks"] == blocks


def test_deleting(open_cache: OpenCache, attach: Callable[..., None]) -> None:
    cache, other = open_cache(), open_cache()
    attach(cache)
    for name in ("a", "dir/b", "dir/sub/c", "dir/sub/d"):
        cache.put(f"d/{name}", b"x")
        other.read(f"d/{name}").release()
    cache.delete("d/a")
    attempts: list[Callable[[], object]] = [
        lambda: other.read("d/a"),
        lambda: other.stat("d/a"),
        lambda: cache.delete("d/a"),
    ]
    for attempt in attempts:
        with pytest.raises(NotFound):
            attempt()
    with pytest.raises(UnderStorageError) as caught:
        cache.delete("d/dir")
    assert caught.value.errno == errno.ENOTEMPTY
    cache.delete("d/dir", recursive=True)
    assert other.exists("d/dir/b") is False
    assert other.exists("d/dir") is False
    with pytest.raises(NotFound):
        other.listdir("d/dir/sub")
    with pytest.raises(NotFound):
        cache.delete("d/dir", recursive=True)
    cache.put("d/dir", b"now an object")
    assert bytes(other.read("d/dir")) == b"now an object"


def test_renaming(open_cache: OpenCache, attach: Callable[..., None]) -> None:
    cache, other = open_cache(), open_cache()
    attach(cache)
    for name in ("a", "dir/b", "dir/sub/c", "e"):
        cache.put(f"d/{name}", name.encode())
        other.read(f"d/{name}").release()
    cache.rename("d/a", "d/e")
    assert (bytes(other.read("d/e")), other.exists("d/a")) == (b"a", False)
    cache.rename("d/dir", "d/other/place")
    assert (bytes(other.read("d/other/place/b")), other.listdir("d/other/place")) == (b"dir/b", ["b", "sub"])
    assert bytes(other.read("d/other/place/sub/c")) == b"dir/sub/c"
    assert (other.exists("d/dir/b"), other.exists("d/dir/sub/c"), other.exists("d/dir")) == (False,) * 3
    cache.rename("d/e", "d/e")
    assert bytes(other.read("d/e")) == b"a"
    for pair in (("d/a", "d/b"), ("d/a", "d/a")):
        with pytest.raises(NotFound):
            cache.rename(*pair)
    with pytest.raises(OSError, match="into itself"):
        cache.rename("d/other", "d/other/deeper")


def test_directories(open_cache: OpenCache, attach: Callable[..., None]) -> None:
    cache, other = open_cache(), open_cache()
    attach(cache)
    cache.put("d/a", b"1")
    assert other.listdir("d") == ["a"]
    try:
        cache.mkdir("d/dir/sub")
    except UnderStorageError:
        assert other.listdir("d") == ["a"]
        return
    assert (other.listdir("d"), other.listdir("d/dir"), other.listdir("d/dir/sub")) == (
        ["a", "dir"],
        ["sub"],
        [],
    )
    cache.mkdir("d/dir/sub")
    with pytest.raises(FileExistsError):
        cache.mkdir("d/a")
    cache.rename("d/dir", "d/new")
    assert (other.listdir("d"), other.listdir("d/new")) == (["a", "new"], ["sub"])
    cache.delete("d/new", recursive=True)
    assert other.listdir("d") == ["a"]


def test_exclusive(open_cache: OpenCache, attach: Callable[..., None]) -> None:
    cache, other = open_cache(), open_cache()
    attach(cache)
    cache.put("d/a", b"there")
    try:
        cache.put("d/b", b"first", exclusive=True)
    except UnderStorageError as error:
        refused = error
    else:
        for data in (b"second", bytes(9 * MIB)):
            with pytest.raises(FileExistsError):
                other.put("d/b", data, exclusive=True)
            with pytest.raises(FileExistsError):
                other.open("d/b", "xb")
        with cache.open("d/c", "xb") as file, other.open("d/c", "xb") as rival:
            file.write(b"of file")
            rival.write(b"of rival")
            rival.close()
            with pytest.raises(FileExistsError):
                file.close()
        assert (bytes(cache.read("d/b")), bytes(cache.read("d/c"))) == (b"first", b"of rival")
        return
    assert refused.errno == errno.EOPNOTSUPP
    with pytest.raises(UnderStorageError, match="nothing exclusively"):
        cache.open("d/b", "xb")
    assert cache.listdir("d") == ["a"]


def test_one_wins_an_exclusive_race(open_cache: OpenCache, attach: Callable[..., None]) -> None:
    caches = [open_cache(), open_cache()]
    attach(caches[0])
    won: list[int] = []

    def race(number: int) -> None:
        try:
            caches[number % 2].put("d/raced", b"%d" % number, exclusive=True)
        except FileExistsError:
            return
        except UnderStorageError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            return
        won.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(race, range(8)))
    if won:
        assert bytes(caches[0].read("d/raced")) == b"%d" % won[0]
    else:
        assert not caches[0].exists("d/raced")
    assert len(won) <= 1


@pytest.mark.parametrize("name", ["new\nline", "\x1b[31m", "ü" * 80, "a b+c%20d&e?f#g", "k" * 255, "\udcff"])
def test_odd_names_are_written_or_refused(
    open_cache: OpenCache, attach: Callable[..., None], name: str
) -> None:
    cache = open_cache()
    attach(cache)
    cache.put("d/plain", b"1")
    try:
        cache.put(f"d/{name}", b"odd")
    except OSError:
        assert cache.listdir("d") == ["plain"]
    else:
        assert bytes(cache.read(f"d/{name}")) == b"odd"
        assert name in cache.listdir("d") or name == "new\nline"


def test_cached_as_well(open_cache: OpenCache, attach: Callable[..., None], tmp_path: Path) -> None:
    cache = open_cache()
    attach(cache, write_mode="cache_through")
    data = os.urandom(3 * BLOCK + 7)
    (tmp_path / "local").write_bytes(data)
    for path, what in (("d/a", data), ("d/b", bytearray(data)), ("d/c", tmp_path / "local")):
        cache.put(path, what)
    with cache.open("d/e", "wb") as file:
        file.write(data)
    before = counters(cache)["source_requests"]
    assert all(bytes(cache.read(f"d/{name}")) == data for name in "abce")
    assert counters(cache)["source_requests"] == before
    attach(cache, write_mode="through")
    cache.put("d/a", data)
    assert bytes(cache.read("d/a")) == data
    assert cache.check().ok
