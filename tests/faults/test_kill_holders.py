"""Processes killed while others depend on them: readers that hold leases, the maintainer."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

from forebay.store import BlockStore
from tests.faults._child import Child, wait_until
from tests.faults._held import held, recycle, take, with_block
from tests.faults._place import Place, settle
from tests.faults._points import CHURNED
from tests.faults._world import Block

READERS: Final = 6
# A put that finds no room looks whether there is a maintainer; its sign of life lasts two seconds.
TAKEOVER_S: Final = 1.9
# Of a put that takes longer the rest was not its own: the processor was another's.
PUT_S_MAX: Final = 0.01


def hold(link: Connection, place: Place) -> None:
    """Body: hold views until killed."""
    with place.open() as store:
        views = [take(store) for _ in range(3)]
        link.send(len(views))
        link.recv()


def test_leases_of_killed_readers_are_reclaimed(memory_path: Path) -> None:
    place = with_block(Place.under(memory_path, quota="8MiB"))
    with ExitStack() as stack:
        readers = [stack.enter_context(Child(hold, place)) for _ in range(READERS)]
        assert [reader.receive() for reader in readers] == [3] * READERS

        def watch(link: Connection) -> None:
            with place.open() as store:
                assert [holder["leases"] for holder in store.status()["holders"]] == [3] * READERS
                recycle(store)
                assert held(store) == (1, READERS)
                link.send("held")
                for left in range(READERS - 1, -1, -1):
                    assert link.recv() == "killed"
                    assert held(store) == (min(left, 1), left)
                    link.send("counted")
                assert store.status()["rows"]["used"] == 1

        watcher = stack.enter_context(Child(watch))
        assert watcher.receive() == "held"
        for reader in readers:
            reader.kill()
            assert reader.exit_code() == -signal.SIGKILL
            assert watcher.ask("killed") == "counted"
        watcher.result()


def test_a_row_taken_anew_has_none_of_the_dead_ones_leases(memory_path: Path) -> None:
    place = with_block(Place.under(memory_path, quota="8MiB"))

    def watch(link: Connection) -> None:
        with place.open() as store:
            link.send("open")
            assert link.recv() == "killed"
            with place.open() as second:
                assert second.status()["rows"]["used"] == 2
                recycle(store)
                assert held(store) == (0, 0)

    with Child(watch) as watcher:
        assert watcher.receive() == "open"
        with Child(hold, place) as reader:
            assert reader.receive() == 3
            reader.kill()
            reader.exit_code()
        watcher.send("killed")
        watcher.result()


def churn(store: BlockStore, number: int) -> bool:
    """Put one more block of a dataset that evicts."""
    block = Block(number, 30_000, dataset=CHURNED)
    return store.put(block.key, block.data, dataset=CHURNED)


def keep_churning(link: Connection, place: Place, first: int) -> None:
    """Body: put without end, with a maintainer's thread if there is none; at rest when told."""
    with place.open(maintainer=True) as store:
        store.set_retention(CHURNED, "s3fifo")
        while not churn(store, first):
            first += 1
        link.send("maintains")
        while not link.poll(0.001):
            churn(store, first)
            first += 1
        if link.recv() == "rest":
            # Its thread has done all that there was to do.
            settle(store)
            link.send("rests")
            link.recv()


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("end", ["kill", "close"])
def test_when_the_maintainer_is_gone_another_takes_over(end: str, memory_path: Path) -> None:
    place = Place.under(memory_path, high=0.4)

    def go_on(link: Connection) -> None:
        with place.open(maintainer=True) as store:
            store.set_retention(CHURNED, "s3fifo")
            link.send("open")
            assert link.recv() == "gone"
            number, evicted = 10**6, store.status()["counters"]["evicted"]
            alone, took_s = threads(), 0.0
            while threads() == alone:
                begun = time.monotonic()
                churn(store, number)
                number += 1
                took_s += min(time.monotonic() - begun, PUT_S_MAX)
            assert took_s < TAKEOVER_S

            def evicts_again() -> bool:
                nonlocal number
                for _ in range(50):
                    churn(store, number)
                    number += 1
                return bool(store.status()["counters"]["evicted"] > evicted + 1000)

            wait_until(evicts_again, "eviction goes on")
            wait_until(lambda: store.status()["maintainer_alive"], "it gives a sign of life")
            wait_until(lambda: churn(store, number), "there is room again")

    with Child(go_on) as other:
        assert other.receive() == "open"
        with Child(keep_churning, place, 0) as maintainer:
            assert maintainer.receive() == "maintains"
            if end == "kill":
                maintainer.kill()
                maintainer.exit_code()
            else:
                maintainer.send("end")
                maintainer.result()
        other.send("gone")
        other.result()


def test_no_put_waits_for_a_stopped_maintainer(memory_path: Path) -> None:
    place = Place.under(memory_path, high=0.4)
    kept = [Block(5 * 10**6 + i, 2000) for i in range(50)]

    def work(link: Connection) -> None:
        with place.open(maintainer=True) as store:
            for block in kept:
                assert store.put(block.key, block.data)
            link.send("open")
            assert link.recv() == "stopped"
            refused = slow = 0
            for number in range(10**6, 10**6 + 1500):
                begun = time.monotonic()
                refused += not churn(store, number)
                with store.get(kept[number % 50].key) or memoryview(b"") as view:
                    assert view == kept[number % 50].data
                slow += time.monotonic() - begun >= 1.0
            assert refused > 0, "nobody evicts meanwhile, so at last there is no room"
            # All would be slow that waited; a busy machine makes few so.
            assert slow < refused / 10
            link.send("refused")
            assert link.recv() == "goes on"
            wait_until(lambda: churn(store, 2 * 10**6), "it evicts again")

    with Child(keep_churning, place, 0) as maintainer:
        assert maintainer.receive() == "maintains"
        with Child(work) as other:
            assert other.receive() == "open"
            # Stopped in the midst of a page it would be in the way of those who want that page.
            assert maintainer.ask("rest") == "rests"
            maintainer.stop()
            assert other.ask("stopped") == "refused"
            maintainer.resume()
            other.send("goes on")
            other.result()
        maintainer.send("end")
        maintainer.result()
