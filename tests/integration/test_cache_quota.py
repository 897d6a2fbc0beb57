"""Quotas of datasets: nothing is admitted beyond them, reads go on, and they outlive a restart."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB
from forebay.errors import ConfigError, NotAttached
from forebay.testing.s3 import S3Server
from tests.integration._cli import Cli
from tests.integration._sites import OpenCache, write_files

FILE_BYTES = 10_000
FILES = {f"{part}/{number}": os.urandom(FILE_BYTES) for part in "ab" for number in range(10)}
QUOTA = 5 * FILE_BYTES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_files(tmp_path / "data", FILES)
    return tmp_path / "data"


def read_all(cache: Cache) -> None:
    for path, data in FILES.items():
        assert bytes(cache.read(f"d/{path}")) == data


def cached_bytes(cache: Cache) -> int:
    (dataset,) = (one for one in cache.status()["datasets"].values() if one["name"] == "d")
    return int(dataset["committed_bytes"])


def test_over_it_nothing_is_admitted_and_reads_go_on(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    assert cache.attach("d", folder.as_uri(), quota=QUOTA).quota_bytes == QUOTA
    for _ in range(2):
        read_all(cache)
    assert cached_bytes(cache) == QUOTA
    counted = cache.status()["counters"]
    assert (counted["hits_mem"], counted["misses_not_admitted"]) == (5, 15)
    assert counted["not_admitted"] == 30
    result = cache.load("d").wait()
    assert (result.state, result.progress.files_skipped) == ("incomplete", 5)
    assert cached_bytes(cache) == QUOTA


def test_it_is_changed_for_all_at_once(open_cache: OpenCache, folder: Path) -> None:
    cache, other = open_cache(), open_cache()
    cache.attach("d", folder.as_uri())
    other.set_quota("d", "50KB")
    read_all(cache)
    assert cached_bytes(cache) == QUOTA
    other.set_quota("d", 0)
    assert cached_bytes(cache) == QUOTA, "what is there stays"
    cache.free("d/a")
    read_all(other)
    assert cached_bytes(cache) < QUOTA
    cache.attach("d", folder.as_uri(), quota=2 * QUOTA)
    read_all(other)
    assert cached_bytes(cache) == 2 * QUOTA
    assert other.set_quota("d", None).quota_bytes is None
    read_all(cache)
    assert cached_bytes(cache) == len(FILES) * FILE_BYTES


def test_blocks_of_all_retentions_count(open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", folder.as_uri(), quota=QUOTA)
    cache.set_policy("d/a", retention="lru")
    cache.set_policy("d/b", retention="s3fifo")
    for path in sorted(FILES, key=lambda path: path[::-1]):
        cache.read(f"d/{path}").release()
    assert cached_bytes(cache) == QUOTA
    cache.free("d")
    assert cached_bytes(cache) == 0


def test_it_is_told_anew_before_anything_is_admitted(open_cache: OpenCache, folder: Path) -> None:
    with open_cache() as cache:
        cache.attach("d", folder.as_uri(), quota=QUOTA)
        cache.read("d/a/0").release()
    again = open_cache()
    assert again.datasets()[0].quota_bytes == QUOTA
    assert again.status()["datasets"][1]["quota_bytes"] == QUOTA, "as it is kept, before anybody used it"
    read_all(again)
    assert cached_bytes(again) == QUOTA
    assert again.status()["datasets"][1]["quota_bytes"] == QUOTA


@pytest.mark.parametrize("quota", [-1, "much", 1.5, True])
def test_what_is_no_size_is_refused(open_cache: OpenCache, folder: Path, quota: object) -> None:
    cache = open_cache()
    with pytest.raises(ConfigError, match="quota"):
        cache.attach("d", folder.as_uri(), quota=quota)  # type: ignore[arg-type]
    cache.attach("d", folder.as_uri())
    with pytest.raises(ConfigError, match="quota"):
        cache.set_quota("d", quota)  # type: ignore[arg-type]
    with pytest.raises(NotAttached):
        cache.set_quota("e", 1)


def test_the_command_over_s3(cli: Cli, s3_server: S3Server, tmp_path: Path) -> None:
    write_files(tmp_path / "buckets/bucket", {f"f{number}": bytes(MIB) for number in range(6)})
    attach = ("attach", "d", "s3://bucket", "--endpoint-url", s3_server.endpoint_url)
    assert cli(*attach, "--quota", "much").code == 2
    assert cli(*attach, "--quota", "2MiB").code == 0
    assert cli("datasets").lines[0].endswith("\t2.0 MiB")
    assert cli("load", "d").code == 1
    assert len(cli("cat", "d/f5").out) == MIB
    line, *_ = (line for line in cli("status").lines if line.startswith("d "))
    assert [cell.strip() for cell in line.split("  ") if cell][1:4] == ["2.0 MiB", "2.0 MiB", "100.0 %"]
    assert json.loads(cli("quota", "d", "100KiB", "--json").out)["quota_bytes"] == 100 * KIB
    assert cli("quota", "d", "none").lines == ["quota of d: none"]
    assert cli("load", "d").code == 0
    assert cli("quota", "d", "-1").code == 2
    assert cli("quota", "e", "1MiB").code == 1
