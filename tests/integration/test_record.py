"""Recording: what each verb notes, which processes take part, what becomes of a trace, and replaying it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache, Trace
from forebay.config import KIB
from forebay.errors import ConfigError, TraceNotFound
from forebay.testing.faulty import FaultyStorage
from tests.integration._sites import OpenCache, write_files

BLOCK = 64 * KIB
SIZES = {"empty": 0, "small": 1_000, "block": BLOCK, "large": 2 * BLOCK + 5, "sub/deep": 10}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write_files(root, {name: os.urandom(size) for name, size in SIZES.items()})
    return root


@pytest.fixture
def cache(open_cache: OpenCache, folder: Path) -> Cache:
    cache = open_cache()
    cache.attach("d", folder.as_uri(), max_age=None)
    return cache


def told(trace: Trace) -> list[tuple[Any, ...]]:
    """Path in the dataset, offset, length, size of each access."""
    return [(access.path[2:], *access[2:]) for access in trace.accesses()]


VERBS: dict[str, tuple[Callable[[Cache], object], list[tuple[Any, ...]]]] = {
    "read": (lambda cache: cache.read("d/small"), [("small", 0, 1_000, 1_000)]),
    "read a part": (lambda cache: cache.read("d/large", 10, 20), [("large", 10, 20, SIZES["large"])]),
    "read behind the end": (
        lambda cache: cache.read("d/small", 990, 100),
        [("small", 990, 10, 1_000)],
    ),
    "read nothing": (lambda cache: cache.read("d/empty"), [("empty", 0, 0, 0)]),
    "readinto": (
        lambda cache: cache.readinto("d/small", bytearray(2_000)),
        [("small", 0, 1_000, 1_000)],
    ),
    "readinto a part": (
        lambda cache: cache.readinto("d/small", bytearray(30), 7),
        [("small", 7, 30, 1_000)],
    ),
    "read_many": (
        lambda cache: cache.read_many(["d/sub/deep", "d/small"]),
        [("sub/deep", 0, 10, 10), ("small", 0, 1_000, 1_000)],
    ),
    "views": (
        lambda cache: list(cache.views("d/large")),
        [("large", n * BLOCK, min(BLOCK, SIZES["large"] - n * BLOCK), SIZES["large"]) for n in range(3)],
    ),
    "open": (
        lambda cache: [cache.open("d/small").read(size) for size in (5, 5)],
        [("small", 0, 1_000, 1_000)] * 2,
    ),
    "open and read much": (
        lambda cache: cache.open("d/large").read(),
        [("large", 0, SIZES["large"], SIZES["large"])],
    ),
    "prefetch": (
        lambda cache: list(cache.prefetch(["d/small", "d/sub/deep"])),
        [("small", 0, 1_000, 1_000), ("sub/deep", 0, 10, 10)],
    ),
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_each_verb_notes_cold_and_warm(cache: Cache, verb: str) -> None:
    act, expected = VERBS[verb]
    with cache.record("t", manifests=False) as trace:
        for _ in range(3):
            act(cache)
        assert told(trace) == expected * 3
    act(cache)
    assert told(cache.trace("t")) == expected * 3


def test_what_is_no_reading_is_not_noted(cache: Cache) -> None:
    with cache.record("t") as trace:
        cache.stat("d/small")
        cache.listdir("d")
        cache.load("d", wait=True)
        with pytest.raises(FileNotFoundError):
            cache.read("d/absent")
    assert told(trace) == []
    assert cache.manifests("d") == []


def test_what_the_store_does_not_keep_and_nobody_remembers_is_noted_with_its_size(
    open_cache: OpenCache,
) -> None:
    storage = FaultyStorage({"a": bytes(1_000)})
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=0)
    with cache.record("t") as trace:
        cache.read("d/a", 10, 10)
    assert told(trace) == [("a", 10, 10, 1_000)]


def test_a_recorded_order_is_replayed(cache: Cache, folder: Path) -> None:
    with cache.record("epoch-1"):
        for name in ("sub/deep", "small", "sub/deep", "large", "small"):
            cache.read(f"d/{name}").release()
    (manifest,) = cache.manifests("d")
    assert (manifest.version, manifest.objects, manifest.is_ordered) == ("epoch-1", 3, True)
    assert manifest.bytes == sum(SIZES[name] for name in ("sub/deep", "small", "large"))
    assert not manifest.is_in_use
    cache.free("d")
    assert cache.load("d", order="epoch-1", wait=True).result().ok
    usage = {name: cache.usage(f"d/{name}").cached_bytes for name in SIZES}
    assert usage == {"empty": 0, "block": 0} | {n: SIZES[n] for n in ("small", "large", "sub/deep")}
    order = cache._runtime().manifests.order("d", "epoch-1")
    assert list(order) == ["sub/deep", "small", "large"]


def test_a_manifest_for_each_dataset_and_for_versions(cache: Cache, folder: Path) -> None:
    cache.attach("e", f"{folder.as_uri()}/sub", max_age=None)
    cache.create_manifest("d", "v1")
    with cache.record("t"):
        cache.read("d@v1/small").release()
        cache.read("e/deep").release()
        cache.read("d/block").release()
    assert [each.objects for each in cache.manifests("d") if each.version == "t"] == [2]
    assert [each.objects for each in cache.manifests("e")] == [1]
    assert list(cache._runtime().manifests.order("d", "t")) == ["small", "block"]


def test_a_dataset_that_is_gone_at_the_end(cache: Cache, folder: Path) -> None:
    cache.attach("e", f"{folder.as_uri()}/sub", max_age=None)
    with cache.record("t"):
        cache.read("e/deep").release()
        cache.read("d/small").release()
        cache.detach("e")
    assert [each.version for each in cache.manifests("d")] == ["t"]


def test_an_exception_leaves_the_trace_and_makes_no_manifest(cache: Cache) -> None:
    def fail() -> None:
        with cache.record("t"):
            cache.read("d/small").release()
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert cache.trace("t").status().state == "complete"
    assert cache.manifests("d") == []
    # It can be made of the trace at any time, once.
    assert [each.objects for each in cache.create_manifests("t")] == [1]
    with pytest.raises(ConfigError, match="'t'"):
        cache.create_manifests("t")


def test_names_that_are_taken(cache: Cache) -> None:
    cache.create_manifest("d", "v1")
    with pytest.raises(ConfigError, match="'v1'"), cache.record("v1"):
        raise AssertionError("recorded over a manifest")
    assert cache.traces() == []
    with cache.record("t"), pytest.raises(ConfigError, match="recorded already"), cache.record("u"):
        raise AssertionError("recorded twice at once")
    with pytest.raises(ConfigError, match="trace delete"), cache.record("t", manifests=False):
        raise AssertionError("recorded over a trace")
    cache.delete_trace("t")
    with pytest.raises(TraceNotFound):
        cache.trace("t")
    with pytest.raises(ConfigError, match="max_bytes"), cache.record("t", max_bytes="much"):
        raise AssertionError("recorded without a limit")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_take_part(cache: Cache, method: str) -> None:
    context: BaseContext = multiprocessing.get_context(method)
    with cache.record("t") as trace:
        workers = [
            context.Process(target=cache.read_many, args=(paths,))  # type: ignore[attr-defined]
            for paths in (["d/small"], ["d/block", "d/sub/deep"])
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
        cache.read("d/large").release()
    assert {path for path, *_ in told(trace)} == {"small", "block", "sub/deep", "large"}
    assert trace.status().processes == 3
    # A copy that is made afterwards takes no part in anything.
    copy = pickle.loads(pickle.dumps(cache))
    copy.read("d/small").release()
    copy.close()
    assert trace.status().processes == 3


def test_a_process_that_is_told_to_takes_part(
    open_cache: OpenCache, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    with cache.record("t") as trace:
        other = open_cache(record="t")
        other.read("d/small").release()
        assert told(trace) == [("small", 0, 1_000, 1_000)]
    other.read("d/block").release()
    open_cache(record="absent").read("d/small").release()
    assert caplog.records == []
