"""A lost index is rebuilt from record tables: never with older bytes, never with what was dropped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.config import KIB, MIB
from forebay.store import BlockStore
from tests.unit._stores import Stores, maintain, noise, rebuilt

LENGTH = 30_000


@pytest.fixture(params=["MEM", "SSD"])
def lose_index(request: pytest.FixtureRequest, stores: Stores) -> Callable[[BlockStore | None], BlockStore]:
    """What closes a store (None: opens the first one), removes its index, and opens it again."""
    tier = stores.tier(32 * MIB, request.param)

    def reopen(store: BlockStore | None) -> BlockStore:
        if store is not None:
            store.close()
            os.unlink(stores.path / "v1" / "index")
        return stores.open(tier)

    return reopen


Lose = Callable[[BlockStore | None], BlockStore]


def test_every_block_comes_back_and_reads_are_served_meanwhile(lose_index: Lose) -> None:
    store = lose_index(None)
    for number in range(700):
        assert store.put(b"%d" % number, noise(LENGTH, number), dataset=number % 3)
    store = lose_index(store)
    assert store.status()["index"]["rebuilding"]
    seen: list[int] = []
    while store.status()["index"]["rebuilding"]:
        store.maintain()
        for number in range(700):
            view = store.get(b"%d" % number)
            assert view is None or view == noise(LENGTH, number)
        seen.append(store.status()["blocks"])
    assert seen[0] < seen[-1] == 700
    assert [store.contains(b"%d" % number) for number in range(700)] == [True] * 700
    assert store.check().ok
    store.free_dataset(1)
    assert store.status()["blocks"] == 700 - 233


def test_a_newer_block_put_before_the_older_was_found_stays_the_newer_one(lose_index: Lose) -> None:
    store = lose_index(None)
    store.put(b"k", b"first")
    for generation in (b"second", b"third", b"fourth"):
        store = lose_index(store)
        assert store.get(b"k") is None
        assert store.put(b"k", generation)
        rebuilt(store)
        assert store.get(b"k") == generation
    assert store.status()["blocks"] == 1
    assert rebuilt(lose_index(store)).get(b"k") == b"fourth"


def test_a_block_deleted_before_it_was_found_does_not_come_back(lose_index: Lose) -> None:
    store = lose_index(None)
    store.put(b"k", b"value")
    store.put(b"other", b"value")
    store = lose_index(store)
    store.delete(b"k")
    rebuilt(store)
    assert store.get(b"k") is None
    assert store.get(b"other") == b"value"
    assert rebuilt(lose_index(store)).get(b"k") is None


def write_file(store: BlockStore, seed: int) -> None:
    """Two blocks of a megabyte, under the same keys whatever the seed."""
    with store.reserve_file(b"file", 2 * MIB, block_bytes=MIB) as file:
        for number in range(2):
            file.write(number, b"file/%d" % number, noise(MIB, seed + number))
        if seed:
            raise InterruptedError


def test_a_file_given_up_before_the_older_one_was_found_leaves_neither(stores: Stores) -> None:
    tier = stores.tier(128 * MIB)
    store = stores.open(tier)
    write_file(store, 0)
    assert store.get(b"file/0") == noise(MIB, 0)
    store.close()
    os.unlink(stores.path / "v1" / "index")
    store = stores.open(tier)
    with pytest.raises(InterruptedError):
        write_file(store, 10)
    rebuilt(store)
    assert [store.get(b"file/%d" % number) for number in range(2)] == [None, None]
    assert store.check().ok


def test_a_dataset_freed_before_it_was_found_does_not_come_back(lose_index: Lose) -> None:
    store = lose_index(None)
    store.put(b"a", b"value", dataset=1)
    store.put(b"b", b"value", dataset=2)
    store = lose_index(store)
    store.free_dataset(1)
    rebuilt(store)
    assert store.get(b"a") is None
    assert store.get(b"b") == b"value"


@pytest.mark.parametrize("retention", ["lru", "s3fifo"])
def test_what_was_evicted_or_moved_does_not_come_back_older_than_it_was(
    lose_index: Lose, retention: str
) -> None:
    """Segments out of use keep their bytes until they are used again."""
    store = lose_index(None)
    store.set_retention(0, retention)
    current: dict[bytes, int] = {}
    for number in range(3000):
        key = b"%d" % (number * 7919 % 1300)
        if number % 4 == 3:
            store.delete(key)
            current.pop(key, None)
        elif store.put(key, noise(LENGTH, number)):
            current[key] = number
        store.get(b"%d" % (number * 31 % 1300))
        if number % 10 == 0:
            store.maintain()
    maintain(store, lambda: store.status()["tiers"][0]["used_bytes"] < 31 * MIB)
    present = {key for key in current if store.contains(key)}
    assert 300 < len(present) < len(current)
    store = rebuilt(lose_index(store))
    for number in range(1300):
        key = b"%d" % number
        view = store.get(key)
        if view is not None:
            assert view == noise(LENGTH, current[key])
    assert len(present - {key for key in present if store.contains(key)}) <= len(present) // 100
    assert store.status()["blocks"] == len(present)


def test_a_freed_dataset_and_what_was_given_up_do_not_come_back(stores: Stores) -> None:
    store = stores.open()
    held = []
    for number in range(300):
        store.put(b"%d" % number, noise(LENGTH, number), dataset=5)
        held.append(store.get(b"%d" % number))
    file = store.reserve_file(b"file", 2 * MIB, block_bytes=64 * KIB)
    file.write(0, b"block", bytes(64 * KIB))
    held.append(store.get(b"block"))
    file.finish(keep=False)
    store.free_dataset(5)
    assert store.status()["tiers"][0]["segments_held"] > 5
    store.put(b"7", b"newer")
    store.delete(b"7")
    held.clear()
    store.close()
    os.unlink(stores.path / "v1" / "index")
    store = rebuilt(stores.open())
    assert store.status()["blocks"] == 0
    assert store.get(b"7") is None
    assert store.get_file(b"file") is None


def test_pins_come_back(lose_index: Lose) -> None:
    store = lose_index(None)
    for number in range(20):
        store.put(b"%d" % number, noise(LENGTH, number))
        store.pin(b"%d" % number)
    for number in range(5):
        store.unpin(b"%d" % number)
    store = rebuilt(lose_index(store))
    assert store.status()["tiers"][0]["pinned_bytes"] == 15 * LENGTH


def test_a_store_closed_before_its_rebuild_is_done_goes_on_with_it(lose_index: Lose, stores: Stores) -> None:
    store = lose_index(None)
    for number in range(700):
        store.put(b"%d" % number, noise(LENGTH, number))
    store = lose_index(store)
    store.maintain()
    store.close()
    store = rebuilt(stores.reopen())
    assert [store.contains(b"%d" % number) for number in range(700)] == [True] * 700


KILLED = """
import os, sys
from forebay.store import BlockStore, Tier

store = BlockStore(sys.argv[1], [Tier(sys.argv[2], "128MiB", "MEM")], block_bytes=65_536, maintainer=False)
for number in range(3):
    assert store.put(b"%d" % number, b"value")
with store.reserve_file(b"file", 2 << 20, block_bytes=65_536) as file:
    for number in range(32):
        file.write(number, b"file/%d" % number, bytes([number]) * 65_536)
"""


def test_a_whole_file_whose_writer_was_killed_stays_by_block_and_can_be_evicted(stores: Stores) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, stores.path, stores.tier().path],
        env=os.environ | {"FOREBAY_FAILPOINT": "whole.written=kill@20"},
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    store = stores.open(stores.tier(128 * MIB))
    assert store.get_file(b"file") is None
    assert store.get(b"file/3") == bytes([3]) * 65_536
    assert store.check().ok
    for number in range(32):
        store.delete(b"file/%d" % number)
    maintain(store, lambda: store.status()["tiers"][0]["segments_whole"] == 0)
    assert store.get(b"0") == b"value"


def test_files_that_are_no_segments_of_this_cache_are_taken_away(stores: Stores) -> None:
    store = stores.open()
    for number in range(100):
        store.put(b"%d" % number, noise(LENGTH, number))
    segment_bytes = store.status()["tiers"][0]["segment_bytes"]
    store.close()
    folder = next(Path(stores.tier().path).rglob("seg-000000")).parent
    (folder / "seg-000001").write_bytes(noise(segment_bytes))
    (folder / "seg-000050").write_bytes(b"short")
    (folder / "whole-000003").write_bytes(noise(3 * MIB))
    (folder / "notes").write_text("not ours")
    os.unlink(stores.path / "v1" / "index")
    store = rebuilt(stores.open())
    blocks = store.status()["blocks"]
    assert 30 < blocks < 100
    for number in range(100):
        view = store.get(b"%d" % number)
        assert view is None or view == noise(LENGTH, number)
    assert {path.name for path in folder.iterdir()} & {"seg-000001", "seg-000050", "whole-000003"} == set()
    assert (folder / "notes").read_text() == "not ours"
    assert store.check().ok
