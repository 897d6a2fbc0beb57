"""Loads from a real S3 server: what is known and cached afterwards stands without it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB
from forebay.testing.s3 import S3Server
from tests.faults._child import wait_until

OpenCache = Callable[..., Cache]

NAMES = [f"d{number % 3}/e{number % 2}/f{number:04}" for number in range(1_200)] + [
    "top",
    "d0/näme with blanks",
]


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    bucket = tmp_path / "s3" / "bucket"
    for number, name in enumerate(NAMES):
        path = bucket / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1 + number % 50))
    (bucket / "data" / "large").write_bytes(os.urandom(9_000 * KIB))
    (bucket / "lists").mkdir()
    (bucket / "lists" / "some.txt").write_text("top\nd1/e1/f0001\nnone\n")
    return bucket


@pytest.fixture
def server(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with S3Server(bucket.parent) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server


def attach(cache: Cache, server: S3Server) -> None:
    cache.attach("d", "s3://bucket/data", endpoint_url=server.endpoint_url, max_age=None)


def test_everything_is_read_without_the_server_afterwards(
    open_cache: OpenCache, server: S3Server, bucket: Path
) -> None:
    cache = open_cache()
    attach(cache, server)
    result = cache.load("d").wait(120)
    assert result.ok, result
    assert result.progress.files_done == len(NAMES) + 1
    server.close()
    for name in (*NAMES[::97], "large", "top"):
        assert bytes(cache.read(f"d/{name}")) == (bucket / "data" / name).read_bytes()
    assert cache.load("d/d0", files=["näme with blanks"]).wait(60).progress.files_skipped == 1


def test_metadata_only_answers_every_question_without_the_server(
    open_cache: OpenCache, server: S3Server
) -> None:
    cache = open_cache()
    attach(cache, server)
    assert cache.load("d", metadata_only=True).wait(120).progress.files_done == len(NAMES) + 1
    server.close()
    assert cache.listdir("d") == ["d0", "d1", "d2", "large", "top"]
    assert cache.listdir("d/d0") == ["e0", "e1", "näme with blanks"]
    assert cache.listdir("d/d2/e1") == sorted(
        name.rpartition("/")[2] for name in NAMES if name.startswith("d2/e1/")
    )
    assert cache.stat("d/d2").is_dir
    assert cache.stat("d/large").size == 9_000 * KIB
    assert sum(len(files) for _, _, files in cache.walk("d")) == len(NAMES) + 1
    assert cache.status()["blocks"] == 0


def test_what_is_gone_is_no_longer_listed(
    open_cache: OpenCache, bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache()
    with S3Server(bucket.parent, live=True) as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        attach(cache, server)
        assert cache.load("d", metadata_only=True).wait(120).ok
        (bucket / "data" / "top").unlink()
        shutil.rmtree(bucket / "data" / "d1")
        (bucket / "data" / "d2" / "new").write_bytes(b"new")
        result = cache.load("d", metadata_only=True).wait(120)
        assert result.progress.files_done == len(NAMES) + 1 - 400
    assert cache.listdir("d") == ["d0", "d2", "large"]
    assert cache.listdir("d/d2") == ["e0", "e1", "new"]
    assert not any(path.startswith("d/d1") for path, _, _ in cache.walk("d"))


def test_a_server_that_goes_in_the_middle_costs_nothing_that_is_cached(
    open_cache: OpenCache, server: S3Server, bucket: Path
) -> None:
    names = [name for name in NAMES if name.startswith("d0/")]
    sizes = {name: (bucket / "data" / name).stat().st_size for name in names}
    cache = open_cache()
    url = server.endpoint_url
    cache.attach("d", "s3://bucket/data", endpoint_url=url, max_age=None, attempts=2)
    job = cache.load("d/d0", rate_limit=sum(sizes.values()) // 2)
    wait_until(lambda: cache.status()["blocks"] > 50, "some files are cached")
    # Asked to end it might answer for so long that all is loaded.
    os.kill(server.pid, signal.SIGKILL)
    server.close()
    result = job.wait(120)
    assert (result.state, result.progress.files_settled) == ("incomplete", len(names))
    assert result.progress.files_failed > 0
    cached = cache.status()["blocks"]
    # It comes back elsewhere.
    with S3Server(bucket.parent) as another:
        cache.attach("d", "s3://bucket/data", endpoint_url=another.endpoint_url, max_age=None)
        before = cache.status()["counters"]["source_requests"]
        resumed = cache.resume(job.id).wait(120)
        assert (resumed.ok, resumed.progress.files_done) == (True, len(names) - cached)
        assert cache.status()["counters"]["source_requests"] - before == len(names) - cached
    for name in names[::37]:
        assert bytes(cache.read(f"d/{name}")) == (bucket / "data" / name).read_bytes()


def test_a_part_leaves_the_rest_unknown(open_cache: OpenCache, server: S3Server) -> None:
    cache = open_cache()
    attach(cache, server)
    assert cache.load("d/d0/e0").wait(60).ok
    assert len(cache.listdir("d/d0/e0")) == 200
    # What lies beside it was not looked at, and is asked for.
    assert cache.listdir("d") == ["d0", "d1", "d2", "large", "top"]
    assert cache.listdir("d/d0") == ["e0", "e1", "näme with blanks"]


def test_a_list_that_is_an_object_itself(open_cache: OpenCache, server: S3Server) -> None:
    cache = open_cache()
    attach(cache, server)
    job = cache.load("d", files="s3://bucket/lists/some.txt")
    result = job.wait(60)
    assert (result.progress.files_done, result.progress.files_failed) == (2, 1)
    assert [(each.line, each.path) for each in job.results()] == [(3, "d/none")]
    assert cache.status()["counters"]["source_requests"] == 3
    assert cache.load("d/none").wait(60).state == "failed"
