"""The cache over local folders: reading, listing, attaching, other processes."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import forebay
from forebay import config
from forebay.cache import Cache
from forebay.config import KIB, MIB
from forebay.errors import Closed, ConfigError, NotAttached, NotFound
from tests.integration._sites import OpenCache, counters, write_files

BLOCK = 64 * KIB


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of known files: empty, one byte, around one block, several blocks, in directories."""
    root = tmp_path / "data"
    sizes = {
        "empty": 0,
        "one": 1,
        "block-1": BLOCK - 1,
        "block": BLOCK,
        "block+1": BLOCK + 1,
        "sub/big": 5 * BLOCK + 123,
        "sub/deep/er": 10,
    }
    write_files(root, {name: os.urandom(size) for name, size in sizes.items()})
    return root


FILES = ("empty", "one", "block-1", "block", "block+1", "sub/big", "sub/deep/er")


def test_every_size_reads_right_cold_and_warm(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    for _ in range(2):
        for name in FILES:
            with cache.read(f"d/{name}") as view:
                assert bytes(view) == (folder / name).read_bytes()
    assert counters(cache)["misses_cold"] == counters(cache)["admitted"] == 1 + 1 + 1 + 2 + 6 + 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, 6 * BLOCK), length=st.one_of(st.none(), st.integers(0, 7 * BLOCK)))
def test_any_range_is_what_the_file_has(
    open_cache: OpenCache, folder: Path, offset: int, length: int | None
) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    expected = (folder / "sub/big").read_bytes()[offset : None if length is None else offset + length]
    with cache.read("d/sub/big", offset, length) as view:
        assert bytes(view) == expected
    buffer = bytearray(length or 0)
    assert cache.readinto("d/sub/big", buffer, offset) == len(expected[: len(buffer)])
    assert buffer[: len(expected)] == expected[: len(buffer)]
    cache.close()


def test_one_cached_block_is_not_copied(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    cache.read("d/block").release()
    assert cache.read("d/block").zero_copy
    part = cache.read("d/block", 10, 20)
    assert bytes(part) == (folder / "block").read_bytes()[10:30]


def test_a_part_of_a_block_outlives_its_eviction(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    cache.read("d/block").release()
    part = cache.read("d/block", 100, 200)
    cache.detach("d")
    assert bytes(part) == (folder / "block").read_bytes()[100:300]


def test_read_many_keeps_the_order(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    names = [*FILES, *reversed(FILES)]
    for _ in range(2):
        views = cache.read_many(f"d/{name}" for name in names)
        assert [bytes(view) for view in views] == [(folder / name).read_bytes() for name in names]
    assert cache.read_many([]) == []


def test_read_many_raises_for_the_first_that_fails(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    with pytest.raises(NotFound, match="absent1"):
        cache.read_many(["d/one", "d/absent1", "d/block", "d/absent2"])
    assert bytes(cache.read_many(["d/one"])[0]) == (folder / "one").read_bytes()


def test_figures_that_make_no_sense(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache(max_read_bytes=3 * BLOCK)
    cache.attach("d", folder.as_uri())
    for offset, length in ((-1, None), (0, -1)):
        with pytest.raises(ValueError, match="not negative"):
            cache.read("d/one", offset, length)
    with pytest.raises(ValueError, match=r"max_read_bytes.*readinto"):
        cache.read("d/sub/big")
    assert cache.readinto("d/sub/big", bytearray(6 * BLOCK)) == 5 * BLOCK + 123
    with pytest.raises(TypeError, match="writable"):
        cache.readinto("d/one", b"12")
    with pytest.raises(TypeError):
        cache.readinto("d/one", memoryview(bytearray(10))[::2])


def test_stat_and_listing(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    cache.attach("e", folder.as_uri())
    assert cache.listdir() == ["d", "e"]
    assert cache.listdir("d") == ["block", "block+1", "block-1", "empty", "one", "sub"]
    assert [status.path for status in cache.scandir("d/sub")] == ["d/sub/big", "d/sub/deep"]
    status = cache.stat("d/sub/big")
    assert (status.name, status.size, status.is_dir) == ("big", 5 * BLOCK + 123, False)
    assert status.mtime_ns == (folder / "sub/big").stat().st_mtime_ns
    assert cache.stat("d").is_dir
    assert cache.stat("d/sub/").is_dir
    assert cache.exists("d/sub")
    assert not cache.exists("d/sub/none")


def test_what_is_not_there_or_not_that(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("data", folder.as_uri())
    for attempt in (cache.read, cache.stat, cache.listdir):
        with pytest.raises(NotFound, match="data/none"):
            attempt("data/none")
    with pytest.raises(NotAttached, match="did you mean 'data'"):
        cache.read("dota/one")
    for path in ("data", "data/sub"):
        with pytest.raises(IsADirectoryError):
            cache.read(path)
    with pytest.raises(NotADirectoryError):
        cache.listdir("data/one")
    with pytest.raises(ValueError, match=r"\.\."):
        cache.read("data/../secret")


def test_attaching_again_and_elsewhere(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    first = cache.attach("d", folder.as_uri())
    again = cache.attach("d", folder.as_uri() + "/", max_age=5, retention="lru")
    assert (again.id, again.max_age, again.retention) == (first.id, 5.0, "lru")
    with pytest.raises(ConfigError, match="detach it first"):
        cache.attach("d", (folder / "sub").as_uri())
    cache.detach("d")
    assert cache.attach("d", (folder / "sub").as_uri()).id != first.id
    with pytest.raises(NotAttached):
        cache.detach("other")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "a/b"}, "dataset name"),
        ({"uri": "gopher://x"}, "unknown scheme 'gopher'"),
        ({"uri": "/data"}, "file:///data"),
        ({"uri": "file://relative"}, "absolute folder"),
        ({"uri": "s3://"}, "no bucket"),
        ({"uri": "s3://key:secret@bucket/x"}, "credentials by reference"),
        ({"max_age": -1}, "max_age"),
        ({"max_age": "soon"}, "max_age"),
        ({"retention": "epok"}, "did you mean 'epoch'"),
        ({"region": "eu"}, "no such option"),
        ({"uri": "s3://b", "aws_secret_access_key": "hunter2"}, "by reference"),
        ({"uri": "s3://b", "endpont_url": "http://h"}, "did you mean 'endpoint_url'"),
        ({"uri": "s3://b", "endpoint_url": "h:9000"}, "no http"),
        ({"uri": "s3://b", "endpoint_url": "http://u:hunter2@h"}, "by reference"),
        ({"uri": "s3://b", "attempts": 0}, "attempts"),
    ],
)
def test_attachments_that_make_no_sense(
    open_cache: OpenCache, folder: Path, arguments: dict[str, object], words: str
) -> None:
    cache = open_cache()
    with pytest.raises(ConfigError, match=words) as caught:
        cache.attach(**{"name": "d", "uri": folder.as_uri(), **arguments})  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
    assert cache.datasets() == []


def test_attaching_what_is_not_there_says_so(open_cache: OpenCache, tmp_path: Path) -> None:
    cache = open_cache()
    with pytest.raises(NotFound, match="absent"):
        cache.attach("d", (tmp_path / "absent").as_uri())
    assert cache.datasets() == []


def test_closed_is_closed(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    view = cache.read("d/one")
    cache.close()
    cache.close()
    assert bytes(view) == (folder / "one").read_bytes()
    for attempt in (cache.datasets, cache.status, cache.check, lambda: cache.read("d/one")):
        with pytest.raises(Closed, match="is closed"):
            attempt()
    assert "(closed)" in repr(cache)


def test_check_and_status(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri(), max_age=None)
    cache.read("d/sub/big").release()
    assert cache.check().ok
    status = json.loads(json.dumps(cache.status()))
    assert status["blocks"] == 6
    assert status["attached"][0]["uri"] == folder.as_uri()
    assert status["path"] == cache.path


def test_read_only_reads_and_keeps_nothing(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    cache.read("d/one").release()
    with Cache(cache.path, read_only=True) as reader:
        for name in FILES:
            assert reader.read(f"d/{name}") == (folder / name).read_bytes()
        assert reader.listdir("d/sub") == ["big", "deep"]
    assert counters(cache)["admitted"] == 1


def test_a_new_cache_without_tiers_gets_modest_ones_and_remembers_them(
    tmp_path: Path, memory_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "_SHM", memory_path)
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("FOREBAY_TIERS", raising=False)
    with forebay.open() as cache:
        cache.attach("d", folder.as_uri())
        made = [(tier["path"], tier["medium"], tier["quota_bytes"]) for tier in cache.status()["tiers"]]
    assert [medium for _, medium, _ in made] == ["MEM", "SSD"]
    monkeypatch.setattr(config, "_MEM_TIER_BYTES_MAX", 100 * MIB)
    with forebay.open() as cache:
        assert cache.path == str(tmp_path / "cache")
        assert [
            (tier["path"], tier["medium"], tier["quota_bytes"]) for tier in cache.status()["tiers"]
        ] == made
        assert cache.read("d/one") == (folder / "one").read_bytes()


def test_other_tiers_than_the_remembered_ones_are_an_error(open_cache: OpenCache, memory_path: Path) -> None:
    cache = open_cache()
    with pytest.raises(ConfigError, match=cache.path):
        Cache(cache.path, [forebay.Tier(str(memory_path), 32 * MIB, "MEM")], block_bytes=BLOCK)


def test_an_unknown_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'checksum'"):
        forebay.open(tmp_path, chekcsum="read")


def test_a_pickled_cache_opens_the_same_directory(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    cache.read("d/block").release()
    with pickle.loads(pickle.dumps(cache)) as again:
        assert again.read("d/block").zero_copy
        assert again.datasets() == cache.datasets()


def test_a_forked_child_reads_and_its_parent_goes_on(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri())
    cache.read("d/block").release()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            right = all(bytes(cache.read(f"d/{name}")) == (folder / name).read_bytes() for name in FILES)
            cache.close()
            status = 0 if right else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for name in FILES:
        assert cache.read(f"d/{name}") == (folder / name).read_bytes()
    assert counters(cache)["admitted"] == 12


CHILD = """
import sys, forebay
with forebay.open(sys.argv[1]) as cache:
    print(cache.datasets()[0].name)
    sys.stdout.flush()
    assert sys.stdin.readline()
    print([dataset.name for dataset in cache.datasets()], len(cache.read("second/one")))
"""


def test_another_process_sees_what_is_attached(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("first", folder.as_uri())
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, cache.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "first\n"
        cache.detach("first")
        cache.attach("second", folder.as_uri())
        child.stdin.write("go on\n")
        child.stdin.flush()
        assert child.stdout.readline() == "['second'] 1\n"
    assert child.returncode == 0
