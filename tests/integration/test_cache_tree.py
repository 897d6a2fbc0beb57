"""Walking, syncing, freeing; absent objects; what becomes of old versions; look-ups kept in the process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.cache import Cache, SyncReport
from forebay.cache.paths import block_key, whole_key
from forebay.config import KIB, MIB
from forebay.errors import Closed, ConfigError, NotFound
from forebay.testing.clock import ManualClock
from forebay.testing.faulty import FaultyStorage

BLOCK = 64 * KIB
WAIT_S = 30
OpenCache = Callable[..., Cache]


def faulty(
    open_cache: OpenCache, objects: dict[str, bytes], **settings: float | None
) -> tuple[Cache, FaultyStorage, ManualClock]:
    storage, clock = FaultyStorage(objects), ManualClock()
    cache = open_cache(schemes=storage.schemes(), clock=clock)
    cache.attach("d", "faulty://x", **{"max_age": None, **settings})  # type: ignore[arg-type]
    storage.calls.clear()
    return cache, storage, clock


def blocks(cache: Cache) -> int:
    return int(cache.status()["blocks"])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


TREE = {"a": b"1", "sub/b": b"22", "sub/c": b"333", "sub/deep/d": b"4", "z/e": b"5"}


def test_walk_is_os_walk(open_cache: OpenCache, tmp_path: Path) -> None:
    for name, data in TREE.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(data)
    cache = open_cache()
    cache.attach("d", (tmp_path / "data").as_uri())
    expected = [
        (root.replace(str(tmp_path / "data"), "d"), sorted(directories), sorted(files))
        for root, directories, files in sorted(os.walk(tmp_path / "data"))
    ]
    assert list(cache.walk("d")) == expected
    assert [path for path, _, _ in cache.walk("d/sub")] == ["d/sub", "d/sub/deep"]
    seen = []
    for path, directories, _ in cache.walk("d"):
        seen.append(path)
        directories[:] = [name for name in directories if name != "sub"]
    assert seen == ["d", "d/z"]
    with pytest.raises(NotADirectoryError):
        list(cache.walk("d/a"))
    with pytest.raises(NotFound):
        list(cache.walk("d/none"))


def test_sync_counts_what_is_new_changed_and_gone(open_cache: OpenCache) -> None:
    cache, storage, clock = faulty(open_cache, TREE)
    assert cache.sync("d") == SyncReport(added=len(TREE))
    clock.advance(1)
    assert cache.sync("d") == SyncReport()
    clock.advance(1)
    storage.put("a", b"new")
    storage.put("sub/new", b"1")
    storage.remove("sub/deep/d")
    storage.remove("z/e")
    assert cache.sync("d") == SyncReport(added=1, changed=1, removed=2)
    clock.advance(1)
    assert cache.sync("d") == SyncReport()
    assert cache.listdir("d") == ["a", "sub"]
    assert cache.listdir("d/sub") == ["b", "c", "new"]
    assert cache.read("d/a") == b"new"


def test_sync_finds_gone_what_was_only_read(open_cache: OpenCache) -> None:
    cache, storage, clock = faulty(open_cache, TREE)
    cache.read("d/sub/deep/d").release()
    storage.remove("sub/deep/d")
    clock.advance(1)
    assert cache.sync("d") == SyncReport(added=4, removed=1)
    assert not cache.exists("d/sub/deep/d")


def test_sync_of_one_object(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, TREE)
    assert cache.sync("d/a") == SyncReport(added=1)
    storage.put("a", b"new")
    assert cache.stat("d/a").size == 1
    assert cache.sync("d/a") == SyncReport(changed=1)
    assert cache.stat("d/a").size == 3
    storage.remove("a")
    assert cache.sync("d/a") == SyncReport(removed=1)
    with pytest.raises(NotFound):
        cache.sync("d/a")
    with pytest.raises(NotFound):
        cache.sync("d/none/at/all")


def test_free_drops_bytes_and_asks_nobody(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, {**TREE, "big": b"9" * 5 * BLOCK})
    paths = [f"d/{name}" for name in [*TREE, "big"]]
    for view in cache.read_many(paths):
        view.release()
    assert blocks(cache) == len(TREE) + 5
    storage.calls.clear()
    held = cache.read("d/big", 0, 10)
    cache.free("d/big")
    assert blocks(cache) == len(TREE)
    assert bytes(held) == b"9" * 10
    cache.free("d/sub")
    assert blocks(cache) == 2
    assert cache.stat("d/sub/b").size == 2
    cache.free("d")
    assert blocks(cache) == 0
    assert storage.calls == {}
    assert bytes(cache.read("d/sub/b")) == b"22"
    assert storage.calls == {"read_range": 1, "readinto": 1}


def test_free_metadata_lets_everything_be_asked_anew(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, TREE)
    cache.sync("d")
    cache.read("d/sub/b").release()
    storage.calls.clear()
    cache.free("d/sub", data=False, metadata=True)
    assert blocks(cache) == 1
    assert cache.stat("d/a").size == 1
    assert storage.calls == {}
    assert cache.stat("d/sub/b").size == 2
    assert cache.listdir("d/sub") == ["b", "c", "deep"]
    assert storage.calls == {"stat": 1, "list": 1}
    cache.free("d", data=False, metadata=True)
    assert cache.listdir("d") == ["a", "sub", "z"]
    assert storage.calls["list"] == 2


@pytest.mark.parametrize("path", ["sub/deep/d", "sub/deep", "a", "sub"])
def test_free_metadata_hides_nothing_from_a_listing(open_cache: OpenCache, path: str) -> None:
    cache, storage, _ = faulty(open_cache, TREE)
    cache.sync("d")
    cache.free(f"d/{path}", data=False, metadata=True)
    everything = [f"{directory}/{name}" for directory, _, names in cache.walk("d") for name in names]
    assert sorted(everything) == [f"d/{name}" for name in TREE]
    # Nor does one that was listed alone, and empty, stay so.
    storage.remove("z/e")
    assert cache.listdir("d/z") == ["e"]
    cache.free("d/z", data=False, metadata=True)
    storage.put("z/f", b"6")
    assert cache.listdir("d/z") == ["f"]


def test_an_absent_object_is_remembered_for_the_negative_ttl(open_cache: OpenCache) -> None:
    cache, storage, clock = faulty(open_cache, TREE, negative_ttl=10)
    for attempt in (cache.stat, cache.read, cache.read, cache.stat, cache.open, cache.exists):
        if attempt == cache.exists:
            assert not attempt("d/none")
        else:
            with pytest.raises(NotFound, match="none"):
                attempt("d/none")
    with pytest.raises(NotFound):
        cache.read_many(["d/a", "d/none"])
    # One stat for the absent one, and the other's bytes.
    assert storage.calls == {"stat": 1, "read_range": 1, "readinto": 1}
    storage.put("none", b"here")
    clock.advance(9)
    assert not cache.exists("d/none")
    clock.advance(2)
    assert bytes(cache.read("d/none")) == b"here"


def test_an_object_that_is_listed_is_absent_no_more(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, TREE, negative_ttl=1_000)
    assert not cache.exists("d/none")
    storage.put("none", b"here")
    cache.sync("d")
    assert bytes(cache.read("d/none")) == b"here"


def test_a_failure_is_no_absence(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, TREE, negative_ttl=1_000)
    storage.script("read_range", PermissionError(13, "no", "a"), TimeoutError())
    for kind in (PermissionError, TimeoutError):
        with pytest.raises(kind):
            cache.read("d/a")
    assert bytes(cache.read("d/a")) == b"1"


def test_a_negative_ttl_that_makes_no_sense(open_cache: OpenCache) -> None:
    cache = open_cache()
    with pytest.raises(ConfigError, match="negative_ttl"):
        cache.attach("d", "file:///", negative_ttl=-1)


def keys_of(cache: Cache, path: str, size: int) -> list[bytes]:
    status, dataset = cache.stat(path), cache.datasets()[0]
    rest = path.partition("/")[2]
    numbers = range(-(-size // BLOCK))
    return [block_key(dataset.id, rest, status.version, number, BLOCK) for number in numbers]


def is_whole(cache: Cache, path: str) -> bool:
    status, dataset = cache.stat(path), cache.datasets()[0]
    key = whole_key(dataset.id, path.partition("/")[2], status.version, BLOCK)
    return cache._store.get_file(key) is not None


@pytest.mark.parametrize("size", [10, 5 * BLOCK + 1, 2 * MIB])
def test_blocks_of_a_version_that_is_no_more_are_reclaimed(open_cache: OpenCache, size: int) -> None:
    cache, storage, _ = faulty(open_cache, {"a": b"o" * size})
    cache.stat("d/a")
    cache.read("d/a").release()
    assert blocks(cache) >= -(-size // BLOCK)
    old = keys_of(cache, "d/a", size)
    assert all(cache._store.contains(key) for key in old)
    assert is_whole(cache, "d/a") == (size >= MIB)
    storage.put("a", b"n" * size)
    assert cache.sync("d/a") == SyncReport(changed=1)
    wait_until(lambda: not any(cache._store.contains(key) for key in old))
    assert cache.read("d/a") == b"n" * size
    storage.remove("a")
    new = keys_of(cache, "d/a", size)
    cache.sync("d/a")
    wait_until(lambda: not any(cache._store.contains(key) for key in new))
    storage.put("a", b"n" * size)
    assert not is_whole(cache, "d/a")
    assert cache.check().ok


def test_what_a_process_did_not_reclaim_the_next_one_does(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, {"a": b"o" * 3 * BLOCK})
    cache.read("d/a").release()
    old = keys_of(cache, "d/a", 3 * BLOCK)
    # A process that dies between the transaction and the reclaiming.
    child = os.fork()
    if child == 0:
        runtime = cache._runtime()
        attached, path = runtime.locate("d/a")
        storage.put("a", b"n")
        runtime.lookup._on_stale = lambda: os._exit(0)  # type: ignore[misc]  # the moment of its death
        runtime.lookup.ask(attached, path)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert any(cache._store.contains(key) for key in old)
    cache.close()
    again = open_cache(schemes=storage.schemes())
    wait_until(lambda: not any(again._store.contains(key) for key in old))


def test_a_look_up_is_kept_only_while_it_holds(open_cache: OpenCache) -> None:
    storage = FaultyStorage({"a": b"1", "b": b"2"})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    for path in ("d/a", "d/b"):
        cache.read(path).release()
        assert cache.stat(path).size == 1
    recent = cache._recent
    assert recent.get("d/a") is not None
    other = Cache(cache.path, schemes=storage.schemes())
    storage.put("a", b"new")
    other.sync("d/a")
    assert recent.get("d/a") is None
    assert bytes(cache.read("d/a")) == b"new"
    # Learning something new tells nobody to forget.
    cache.stat("d/b")
    storage.put("c", b"3")
    other.stat("d/c")
    assert recent.get("d/b") is not None
    # Other settings are a change, and so is a detachment.
    other.attach("d", "faulty://x", max_age=0)
    assert recent.get("d/b") is None
    storage.put("b", b"newer")
    assert bytes(cache.read("d/b")) == b"newer"
    other.detach("d")
    with pytest.raises(LookupError):
        cache.stat("d/b")
    other.close()


def test_a_look_up_is_kept_for_no_longer_than_max_age(open_cache: OpenCache, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a").write_bytes(b"old")
    cache = open_cache()
    cache.attach("d", (tmp_path / "data").as_uri(), max_age=0.5)
    assert bytes(cache.read("d/a")) == b"old"
    assert bytes(cache.read("d/a")) == b"old"
    (tmp_path / "data/a").write_bytes(b"newer")
    wait_until(lambda: cache.stat("d/a").size == 5)
    assert bytes(cache.read("d/a")) == b"newer"


def test_kept_look_ups_are_bounded(open_cache: OpenCache) -> None:
    paths = [f"d/o{number}" for number in range(3_000)]
    storage = FaultyStorage({path.removeprefix("d/"): b"1" for path in paths})
    cache = open_cache(schemes=storage.schemes(), max_recent_bytes="64KiB")
    cache.attach("d", "faulty://x", max_age=None)
    assert cache.status()["recent"] == {"entries": 0, "bytes": 0, "bytes_max": 64 * KIB}
    cache.listdir("d")
    for path in paths:
        assert cache.stat(path).size == 1
    recent = cache.status()["recent"]
    assert 500 < recent["entries"] < len(paths)
    assert recent["bytes"] <= recent["bytes_max"]
    assert cache._recent.get(paths[-1]) is not None
    cache.close()
    assert (len(cache._recent), cache._recent.bytes_used) == (0, 0)
    with pytest.raises(Closed):
        cache.stat(paths[-1])


def test_none_are_kept_if_so_wanted(open_cache: OpenCache) -> None:
    storage = FaultyStorage({"a": b"1"})
    cache = open_cache(schemes=storage.schemes(), max_recent_bytes=0)
    cache.attach("d", "faulty://x", max_age=None)
    for _ in range(2):
        assert cache.stat("d/a").size == 1
        assert bytes(cache.read("d/a")) == b"1"
    assert cache.status()["recent"] == {"entries": 0, "bytes": 0, "bytes_max": 0}


def test_a_bound_for_look_ups_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    for bound in (1, "63KiB", "65MiB", -1, "much"):
        with pytest.raises(ConfigError, match="max_recent_bytes"):
            Cache(tmp_path / "cache", max_recent_bytes=bound)


def test_a_max_age_of_any_length_is_kept_to(open_cache: OpenCache) -> None:
    storage = FaultyStorage({"a": b"1"})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=1e300)
    for _ in range(2):
        assert cache.stat("d/a").size == 1
    assert cache._recent.get("d/a") is not None


def test_a_text_of_a_class_of_its_own_is_a_path_as_well(open_cache: OpenCache) -> None:
    class Path(str):
        """As numpy's str_ is."""

    storage = FaultyStorage({"a": b"1"})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    for _ in range(2):
        assert bytes(cache.read(Path("d/a"))) == b"1"
        assert cache.stat(Path("d/a")).path == "d/a"
        assert cache.readinto(Path("d/a"), bytearray(1)) == 1
