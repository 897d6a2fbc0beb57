"""What a member answers its peers with: from its store, else brought once for all who ask."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from forebay.cache import Cache, Serving
from forebay.config import KIB, MIB, Tier
from forebay.errors import NotAttached, NotFound, Stale
from forebay.remote import BlockRef, BlockRequest, NoRemote
from forebay.testing.faulty import FaultyStorage
from forebay.testing.s3 import S3Server
from tests.integration._sites import PATIENCE_S, OpenCache, counters, log_in, proxy_of, write_files

BLOCK = 64 * KIB
DATA = bytes(range(256)) * 900
THREADS = 8
PROCESSES = 4
OBJECTS = {f"o{number}": os.urandom(3 * BLOCK + number + 1) for number in range(8)}


@pytest.fixture
def served(open_cache: OpenCache, storage: FaultyStorage) -> Serving:
    cache = open_cache(schemes=storage.schemes())
    storage.put("big", DATA)
    cache.attach("d", "faulty://x", max_age=60)
    storage.calls.clear()
    return cache.serving()


def brought(served: Serving, path: str, version: str, number: int) -> bytes:
    """Return a block, which comes in order and in pieces."""
    pieces: list[bytes] = []
    served.bring("d", path, version, number, lambda piece: pieces.append(bytes(piece)))
    return b"".join(pieces)


def test_a_block_is_brought_and_then_a_hit(served: Serving, storage: FaultyStorage) -> None:
    assert served.hit("d", "big", "v6", 1) is None
    assert brought(served, "big", "v6", 1) == DATA[BLOCK : 2 * BLOCK]
    assert served.hit("d", "big", "v6", 1) == DATA[BLOCK : 2 * BLOCK]
    assert brought(served, "big", "v6", 3) == DATA[3 * BLOCK :]
    assert storage.calls == {"read_range": 2, "readinto": storage.calls["readinto"]}


def test_a_hit_that_is_none_counts_no_miss(open_cache: OpenCache, served: Serving) -> None:
    assert served.hit("d", "big", "v6", 0) is None
    assert served.hit("nowhere", "big", "v6", 0) is None
    assert list(served.hits([("d", "big", "v6", 0), ("nowhere", "big", "v6", 0)])) == [None, None]
    with open_cache() as beside:
        assert not [name for name, n in counters(beside).items() if name.startswith("misses_") and n]


@pytest.mark.parametrize(
    ("path", "number"), [("big\0v6", 0), ("big", -1), ("big", 1 << 64), ("../big", 0), ("", 0)]
)
def test_what_names_no_block_is_no_hit(served: Serving, path: str, number: int) -> None:
    brought(served, "big", "v6", 0)
    assert served.hit("d", path, "v6", number) is None
    assert served.holds([BlockRef("d", path, "v6", number)]) == b"\0"
    with pytest.raises((ValueError, OSError)):
        brought(served, path, "v6", number)


def test_a_version_of_a_dataset_is_no_dataset_of_a_group(served: Serving) -> None:
    for dataset in ("d@v1", "", "d/sub"):
        assert served.hit(dataset, "big", "v6", 0) is None
        with pytest.raises(NotAttached):
            served.stat(dataset, "big")


def test_who_asks_for_another_version_is_told(served: Serving, storage: FaultyStorage) -> None:
    with pytest.raises(Stale):
        brought(served, "big", "v5", 0)
    assert brought(served, "big", "v6", 0) == DATA[:BLOCK]
    storage.put("big", b"new")
    with pytest.raises(Stale):
        brought(served, "big", "v6", 1)
    assert brought(served, "big", "v7", 0) == b"new"


def test_what_is_not_there_is_said_to_be_so(served: Serving) -> None:
    for call in (
        lambda: brought(served, "none", "v1", 0),
        lambda: served.touch("d", "none", 0, 10),
        lambda: served.stat("d", "none"),
        lambda: list(served.list("d", "none")),
    ):
        with pytest.raises(NotFound):
            call()
    with pytest.raises(NotAttached):
        served.stat("nowhere", "big")


@pytest.mark.parametrize("number", [-1, 4, 1 << 40])
@pytest.mark.parametrize("is_known", [False, True])
def test_a_block_that_the_object_has_not_is_refused(served: Serving, number: int, is_known: bool) -> None:
    if is_known:
        served.stat("d", "big")
    with pytest.raises(ValueError, match="no block"):
        brought(served, "big", "v6", number)


def test_an_unknown_object_is_touched_by_one_request(served: Serving, storage: FaultyStorage) -> None:
    found, data = served.touch("d", "big", 0, 2 * BLOCK)
    assert (found.path, found.size, found.version, found.is_dir) == ("big", len(DATA), "v6", False)
    assert found.age_ns >= 0
    assert data == DATA[: 2 * BLOCK]
    assert storage.calls["read_range"] == 1
    assert served.touch("d", "big", BLOCK, BLOCK)[1] == DATA[BLOCK : 2 * BLOCK]
    assert served.touch("d", "big", 3 * BLOCK, BLOCK)[1] == DATA[3 * BLOCK :]
    assert storage.calls["read_range"] == 2
    assert storage.calls["stat"] == 0


def test_a_touch_of_negative_figures_is_refused(served: Serving) -> None:
    for offset, length in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError, match="not negative"):
            served.touch("d", "big", offset, length)


def test_many_who_touch_an_unknown_object_ask_once(served: Serving, storage: FaultyStorage) -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        found = list(threads.map(lambda _: served.touch("d", "big", 0, BLOCK), range(THREADS)))
    assert all(bytes(data) == DATA[:BLOCK] for _, data in found)
    assert storage.calls["read_range"] == 1


def test_who_asks_later_has_at_once_what_has_come(served: Serving, storage: FaultyStorage) -> None:
    served.stat("d", "big")
    going, go_on = threading.Event(), threading.Event()

    def stop() -> None:
        going.set()
        assert go_on.wait(30)

    storage.script("readinto", stop)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(brought, served, "big", "v6", 0)
        assert going.wait(30)
        second = threads.submit(brought, served, "big", "v6", 0)
        go_on.set()
        assert first.result() == second.result() == DATA[:BLOCK]
    assert storage.calls["read_range"] == 1


def test_who_goes_away_leaves_the_block_to_the_others(served: Serving, storage: FaultyStorage) -> None:
    served.stat("d", "big")

    def go_away(piece: memoryview) -> None:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        served.bring("d", "big", "v6", 0, go_away)
    assert brought(served, "big", "v6", 0) == DATA[:BLOCK]
    assert storage.calls["read_range"] == 1


def test_directories_are_listed_with_their_age(served: Serving, storage: FaultyStorage) -> None:
    (page,) = served.list("d", "sub")
    assert sorted((each.path, each.is_dir) for each in page) == [
        ("sub/b", False),
        ("sub/c", False),
        ("sub/deep", True),
    ]
    assert next(iter(served.list("d", "sub")))[0].age_ns >= page[0].age_ns
    assert storage.calls["list"] == 1
    assert served.stat("d", "sub").is_dir


def test_copies_that_peers_push_are_held(served: Serving) -> None:
    refs = [BlockRef("d", "big", "v6", number) for number in range(4)]
    assert served.admit(refs[1], len(DATA), 0, memoryview(DATA)[BLOCK : 2 * BLOCK])
    with pytest.raises(ValueError, match="has 33792 bytes, not 65536"):
        served.admit(refs[3], len(DATA), 0, memoryview(DATA)[:BLOCK])
    assert served.holds([*refs, BlockRef("nowhere", "big", "v6", 1)]) == bytes([0, 1, 0, 0, 0])
    assert served.hit(*refs[1]) == DATA[BLOCK : 2 * BLOCK]


def test_a_pushed_copy_can_be_pushed_on_and_makes_nothing_fresh(
    open_cache: OpenCache, storage: FaultyStorage
) -> None:
    cache = open_cache(schemes=storage.schemes())
    storage.put("big", DATA)
    cache.attach("d", "faulty://x", max_age=1)
    cache.replicas("d", 2)
    served = cache.serving()
    ref = BlockRef("d", "big", "v1", 1)
    assert served.admit(ref, len(DATA), 0, memoryview(DATA)[BLOCK : 2 * BLOCK])
    assert served.replicated.wanted() == {("d", ""): 2}
    assert list(served.replicated.held()) == [("d", "big", "v1", len(DATA), 0, 2, [1])]
    before = sum(storage.calls.values())
    cache.stat("d/big")
    assert sum(storage.calls.values()) > before


def test_what_is_cached_is_counted_without_a_request(served: Serving, storage: FaultyStorage) -> None:
    assert served.cached_bytes("d", "") == (0, 0)
    brought(served, "big", "v6", 3)
    calls = dict(storage.calls)
    assert served.cached_bytes("d", "big") == (len(DATA) - 3 * BLOCK, len(DATA))
    assert served.cached_bytes("d", "") == (len(DATA) - 3 * BLOCK, len(DATA))
    assert dict(storage.calls) == calls


class FormerOwner(NoRemote):
    """Holds some blocks, and is asked for all."""

    local_copy = "never"

    def __init__(self, numbers: set[int]) -> None:
        self.numbers = numbers

    def is_elsewhere(self, dataset: str, path: str, offset: int, replicas: int = 1) -> bool:
        return True

    def fetch(
        self,
        requests: Sequence[BlockRequest],
        buffers: Sequence[memoryview],
        came: Callable[[int], None],
        alive: Callable[[], None],
    ) -> None:
        for index, request in enumerate(requests):
            if request.number in self.numbers:
                buffers[index][:] = DATA[request.offset : request.offset + request.length]
                came(index)


def test_the_former_owner_is_asked_before_the_source_and_its_blocks_kept(
    open_cache: OpenCache, storage: FaultyStorage
) -> None:
    cache = open_cache(schemes=storage.schemes())
    storage.put("big", DATA)
    cache.attach("d", "faulty://x", max_age=None)
    served = cache.serving(FormerOwner({0, 1}))
    served.stat("d", "big")
    for number in range(3):
        assert brought(served, "big", "v6", number) == DATA[number * BLOCK : (number + 1) * BLOCK]
    assert storage.calls["read_range"] == 1
    assert served.holds([BlockRef("d", "big", "v6", number) for number in range(3)]) == b"\1\1\1"


def serve_all(cache: Cache, versions: dict[str, str], barrier: object) -> bool:
    """Bring all blocks of all objects by many threads that begin together."""
    served = cache.serving()
    barrier.wait()  # type: ignore[attr-defined]  # of multiprocessing
    names = sorted(OBJECTS) * THREADS

    def is_right(name: str) -> bool:
        data = b"".join(brought(served, name, versions[name], number) for number in range(4))
        return data == OBJECTS[name]

    with ThreadPoolExecutor(THREADS) as threads:
        return all(threads.map(is_right, names))


def exit_with(call: Callable[[], bool]) -> None:
    os._exit(0 if call() else 1)


@pytest.mark.parametrize("is_known", [False, True])
def test_cold_blocks_are_asked_of_the_source_once_by_all_processes(
    tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    write_files(tmp_path / "buckets/bucket", OBJECTS)
    fork = multiprocessing.get_context("fork")
    # Many on a busy machine: one that waits for its turn is not to be taken for one that stands still.
    monkeypatch.setattr("forebay.meta.entries._PATIENCE_S", PATIENCE_S)
    tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
    with S3Server(tmp_path / "buckets") as server:
        log_in(server, monkeypatch)
        with (
            proxy_of(server) as proxy,
            Cache(tmp_path / "cache", tiers, block_bytes=BLOCK, stall_timeout_s=PATIENCE_S) as cache,
        ):
            cache.attach("d", "s3://bucket", endpoint_url=proxy.url, max_age=None)
            versions = {each.path.partition("/")[2]: each.version for each in cache.scandir("d")}
            if not is_known:
                cache.free("d", metadata=True)
            proxy.stats(reset=True)
            barrier = fork.Barrier(PROCESSES)
            call = partial(serve_all, cache, versions, barrier)
            processes = [fork.Process(target=exit_with, args=(call,)) for _ in range(PROCESSES)]
            for process in processes:
                process.start()
            for process in processes:
                process.join(120)
            assert [process.exitcode for process in processes] == [0] * PROCESSES
            requests = proxy.stats()["requests_by_method"]
            assert requests == {"GET": 4 * len(OBJECTS)}
