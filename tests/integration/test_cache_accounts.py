"""What a cache counts for each of its datasets: every look-up once, by its cause, and what was fetched."""

from __future__ import annotations

import os
from pathlib import Path

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from tests.integration._sites import OpenCache, write_files

BLOCK = 64 * KIB


def account(cache: Cache, name: str) -> dict[str, int]:
    """Return what was counted for a dataset, without what is zero."""
    (dataset,) = (one for one in cache.status()["datasets"].values() if one["name"] == name)
    return {counter: value for counter, value in dataset["counters"].items() if value}


def misses(cache: Cache, name: str) -> dict[str, int]:
    return {
        counter.removeprefix("misses_"): value
        for counter, value in account(cache, name).items()
        if counter.startswith("misses_")
    }


def attach_folders(cache: Cache, root: Path, sizes: dict[str, int], **policy: object) -> None:
    for name, size in sizes.items():
        write_files(root / name, {"file": os.urandom(size), "other": os.urandom(size)})
        cache.attach(name, (root / name).as_uri(), **policy)  # type: ignore[arg-type]


def test_what_is_read_counts_for_the_dataset_that_it_is_of(open_cache: OpenCache, tmp_path: Path) -> None:
    cache = open_cache()
    attach_folders(cache, tmp_path, {"a": 1000, "b": 3 * BLOCK})
    for name in ("a", "b"):
        for _ in range(3):
            cache.read(f"{name}/file").release()
            cache.readinto(f"{name}/other", bytearray(4 * BLOCK))
    assert account(cache, "a") == {
        "misses_cold": 2,
        "source_requests": 2,
        "source_bytes": 2000,
        "admitted": 2,
        "admitted_bytes": 2000,
        "written_bytes_mem": 2000,
        "hits_mem": 4,
        "hit_bytes_mem": 4000,
    }
    of_b = account(cache, "b")
    assert (of_b["misses_cold"], of_b["source_bytes"], of_b["admitted"]) == (6, 6 * BLOCK, 6)
    assert account(cache, "") == {}
    totals = cache.status()["counters"]
    assert totals["misses_cold"] == 8
    assert totals["source_requests"] == 2 + of_b["source_requests"]


def test_what_changed_is_the_cause_of_all_that_is_missed_for_it(
    open_cache: OpenCache, tmp_path: Path
) -> None:
    """Whichever way the reader goes: from a look-up of its own, one kept by the process, or in one buffer."""
    cache = open_cache()
    attach_folders(cache, tmp_path, {"d": 5 * BLOCK}, max_age=0)
    cache.read("d/file").release()
    assert misses(cache, "d") == {"cold": 5}
    write_files(tmp_path / "d", {"file": os.urandom(4 * BLOCK + 1)})
    cache.read("d/file").release()
    assert misses(cache, "d") == {"cold": 5, "changed": 5}
    write_files(tmp_path / "d", {"file": os.urandom(100)})
    cache.readinto("d/file", bytearray(BLOCK))
    assert misses(cache, "d") == {"cold": 5, "changed": 6}
    cache.read("d/file").release()
    assert account(cache, "d")["hits_mem"] == 1
    assert misses(cache, "d") == {"cold": 5, "changed": 6}


def test_a_version_that_changes_under_a_read_is_the_cause(open_cache: OpenCache, tmp_path: Path) -> None:
    cache = open_cache()
    attach_folders(cache, tmp_path, {"d": 1000}, max_age=3600)
    assert cache.stat("d/file").size == 1000
    write_files(tmp_path / "d", {"file": os.urandom(900)})
    with cache.read("d/file") as view:
        assert len(view) == 900
    assert misses(cache, "d") == {"cold": 1, "changed": 1}, "one look-up for each of the versions"


def test_what_found_no_room_is_the_cause_the_next_time(tmp_path: Path, memory_path: Path) -> None:
    tiers = [Tier(str(memory_path), 4 * MIB, "MEM")]
    with Cache(tmp_path / "cache", tiers, block_bytes=64 * KIB) as cache:
        names = [f"file-{number}" for number in range(100)]
        write_files(tmp_path / "data", {name: os.urandom(BLOCK) for name in names})
        cache.attach("d", (tmp_path / "data").as_uri(), max_age=None)
        for _ in range(3):
            for name in names:
                cache.read(f"d/{name}").release()
        counted = account(cache, "d")
        refused = 100 - counted["admitted"]
        assert refused > 30
        assert misses(cache, "d") == {"cold": 100, "not_admitted": 2 * refused}
        assert counted["not_admitted"] == 3 * refused
        assert counted["hits_mem"] == 2 * counted["admitted"]


def test_a_load_counts_for_its_dataset_and_misses_nothing(open_cache: OpenCache, tmp_path: Path) -> None:
    cache = open_cache()
    attach_folders(cache, tmp_path, {"a": 3 * BLOCK, "b": 10})
    cache.load("a").wait()
    counted = account(cache, "a")
    assert counted["load_bytes"] == counted["source_bytes"] == counted["admitted_bytes"] == 6 * BLOCK
    assert misses(cache, "a") == {}
    assert account(cache, "b") == {}


def test_an_account_goes_on_over_a_restart(open_cache: OpenCache, tmp_path: Path) -> None:
    cache = open_cache()
    attach_folders(cache, tmp_path, {"a": 1000})
    cache.read("a/file").release()
    before = account(cache, "a")
    cache.close()
    cache = open_cache()
    assert account(cache, "a") == before
    cache.read("a/file").release()
    assert account(cache, "a") == before | {"hits_mem": 1, "hit_bytes_mem": 1000}
