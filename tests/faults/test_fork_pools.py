"""Worker pools of every start method on one store, and interpreters that end with it open."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

from forebay.store import BlockStore
from tests.faults import _exits
from tests.faults._child import run, wait_until
from tests.faults._place import Place, assert_account, settle

SCRIPTS: Final = Path(__file__).parent
WAYS: Final = [
    way.__name__
    for way in (
        _exits.with_views,
        _exits.with_a_reservation,
        _exits.with_a_claim,
        _exits.in_a_cycle,
        _exits.while_a_thread_reads,
        _exits.at_once,
        _exits.closed_first,
    )
]


def run_script(name: str, place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder on a store."""
    command = [sys.executable, str(SCRIPTS / name), *arguments, str(place.cache), place.tier.path]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("how", ["all", "killed"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_shares_the_store(method: str, how: str, memory_path: Path) -> None:
    done = run_script("_pools.py", Place.under(memory_path), method, how)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("way", WAYS)
def test_an_interpreter_ends_well_and_leaves_nothing(way: str, memory_path: Path) -> None:
    place = Place.under(memory_path)
    done = run_script("_exits.py", place, way)
    assert (done.returncode, done.stderr) == (0, "")

    def look(link: Connection) -> None:
        with place.open(block_bytes="4MiB") as store:
            with store.get(b"block") or memoryview(b"") as view:
                assert view == b"x" * 1000
            assert store.claim(b"flight").leader
            settle(store)
            assert_account(place, store, {b"block": 1000})

    run(look)


def test_a_store_pickles_as_its_configuration(memory_path: Path) -> None:
    place = Place.under(memory_path)

    def copy(link: Connection) -> None:
        with place.open(stall_timeout_s=0.5) as store:
            assert store.put(b"block", b"x" * 1000)
            copied = pickle.loads(pickle.dumps(store))
            assert isinstance(copied, BlockStore)
            with copied, copied.get(b"block") or memoryview(b"") as view:
                assert view == b"x" * 1000
                rows = [one.status()["rows"]["own"] for one in (store, copied)]
                assert len(set(rows)) == 2
                assert copied.status()["tiers"][0]["path"] == place.tier.path

    run(copy)


def has(store: BlockStore, key: bytes, data: bytes) -> bool:
    with store.get(key) or memoryview(b"") as view:
        return bool(view == data)


def test_threads_share_one_store_with_no_lock_of_their_own(memory_path: Path) -> None:
    place = Place.under(memory_path)

    def share(link: Connection) -> None:
        with place.open() as store:
            errors: list[BaseException] = []

            def work(first: int) -> None:
                try:
                    for i in range(300):
                        key, data = b"%d-%d" % (first, i), b"%d" % (first + i) * 200
                        # One that loses its processor in the midst of a page is in the way for a moment.
                        wait_until(partial(store.put, key, data), "it is admitted")
                        wait_until(partial(has, store, key, data), "it is there")
                except BaseException as error:  # noqa: BLE001 - shown by the main thread
                    errors.append(error)

            threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert errors == []
            assert store.status()["blocks"] == 1200

    run(share)
