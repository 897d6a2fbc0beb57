"""kill -9 in the middle of writes: the under storage has what was there or what was written, whole.

What the killed process has left (uploads, hidden files, staged files, tickets) is gone after the next
opening, and what is known of the path is what the storage has.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import pytest

from forebay.cache import Cache
from forebay.config import MIB, Tier
from forebay.testing.faulty import FaultyStorage
from tests.faults._child import Child, wait_until
from tests.faults._write_moments import (
    BLOCK,
    OpenCache,
    Source,
    kill_at_moments,
    left_on_disk,
    opened_after,
)

MOMENTS: Final = 5


@pytest.mark.parametrize("how", ["put", "open"])
def test_killed_at_random_moments(open_cache: OpenCache, source: Source, tmp_path: Path, how: str) -> None:
    kill_at_moments(open_cache, source, tmp_path, MOMENTS, how, seed=1)


def test_killed_while_staging(tmp_path: Path, open_cache: OpenCache, source: Source) -> None:
    def stage(link: Connection) -> None:
        with open_cache() as cache, cache.open("d/a", "wb") as file:
            file.write(bytes(3 * MIB))
            link.send("staged")
            link.recv()

    with open_cache() as cache:
        cache.attach("d", source.uri, writable=True, **source.options)
        with Child(stage) as child:
            assert child.receive() == "staged"
            assert cache.status()["staging"]["bytes"] >= 3 * MIB
            # Whoever opens meanwhile leaves alone what a living process is at.
            with open_cache() as other:
                other.put("d/b", b"1")
                assert len(left_on_disk(tmp_path)) >= 2
            child.kill()
            child.exit_code()
    with opened_after(open_cache, tmp_path, source) as cache:
        assert cache.status()["staging"]["bytes"] == 0
        assert cache.listdir("d") == ["b"]


def pause(link: Connection) -> Callable[[], object]:
    """Return what says that it was called, and waits for a word."""

    def act() -> object:
        link.send("in it")
        return link.recv()

    return act


def faulty_opener(tmp_path: Path, memory_path: Path, storage: FaultyStorage) -> Callable[[], Cache]:
    """Return what opens a cache over this storage, in whichever process."""
    tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
    return lambda: Cache(tmp_path / "cache", tiers, block_bytes=BLOCK, schemes=storage.schemes())


def test_killed_between_the_write_and_the_note_of_it(tmp_path: Path, memory_path: Path) -> None:
    """An immutable dataset would show the old object for ever."""
    storage = FaultyStorage({"a": b"old"})

    open_one = faulty_opener(tmp_path, memory_path, storage)

    def stop_in_the_middle(link: Connection) -> None:
        storage.script("put", pause(link))
        with open_one() as cache:
            cache.put("d/a", b"new")

    with open_one() as cache:
        cache.attach("d", "faulty://x", max_age=None, writable=True)
        assert bytes(cache.read("d/a")) == b"old"
        with Child(stop_in_the_middle) as child:
            assert child.receive() == "in it"
            # The storage is this process's own as well, so it is written here in the child's stead.
            storage.put("a", b"new")
            child.kill()
            child.exit_code()
    with open_one() as cache:
        wait_until(lambda: left_on_disk(tmp_path) == [], "the ticket is seen to")
        assert bytes(cache.read("d/a")) == b"new"
        assert storage.undone != []
        wait_until(lambda: cache.status()["blocks"] == 1, "what is cached of the old version is reclaimed")


def test_a_ticket_is_kept_until_its_storage_can_be_asked(tmp_path: Path, memory_path: Path) -> None:
    storage = FaultyStorage()

    def open_one(schemes: Any) -> Cache:
        tiers = [Tier(str(memory_path), 64 * MIB, "MEM")]
        return Cache(tmp_path / "cache", tiers, block_bytes=BLOCK, schemes=schemes)

    def stop_in_the_middle(link: Connection) -> None:
        storage.script("put", pause(link))
        with open_one(storage.schemes()) as cache:
            cache.put("d/a", b"new")

    with open_one(storage.schemes()) as cache:
        cache.attach("d", "faulty://x", writable=True)
    with Child(stop_in_the_middle) as child:
        assert child.receive() == "in it"
        child.kill()
        child.exit_code()
    with open_one({}):
        # No such storage here: nobody can be asked.
        pass
    assert len(left_on_disk(tmp_path)) == 1
    with open_one(storage.schemes()):
        wait_until(lambda: left_on_disk(tmp_path) == [], "the ticket is seen to")


def test_a_forked_child_keeps_no_turn_and_no_ticket(tmp_path: Path, memory_path: Path) -> None:
    """A DataLoader's worker outlives a writer that was killed in the middle."""
    storage = FaultyStorage()

    open_one = faulty_opener(tmp_path, memory_path, storage)

    def fork_and_stop(link: Connection) -> None:
        def fork() -> None:
            if os.fork() == 0:
                link.send("forked")
                link.recv()
                os._exit(0)
            time.sleep(60)

        storage.script("put", fork)
        with open_one() as cache:
            cache.put("d/a", b"new")

    with open_one() as cache:
        cache.attach("d", "faulty://x", max_age=0, writable=True)
        with Child(fork_and_stop) as child:
            assert child.receive() == "forked"
            child.kill()
            child.exit_code()
            cache.put("d/a", b"of another")
            assert bytes(cache.read("d/a")) == b"of another"
            with open_one():
                wait_until(lambda: len(left_on_disk(tmp_path)) <= 1, "the dead writer's ticket is seen to")
            child.send("end")


def test_a_write_waits_for_a_living_one(tmp_path: Path, memory_path: Path) -> None:
    storage = FaultyStorage()

    open_one = faulty_opener(tmp_path, memory_path, storage)

    def write_slowly(link: Connection) -> None:
        storage.script("put", pause(link))
        with open_one() as cache:
            cache.put("d/a", b"first")
            link.send("done")

    def write_next(link: Connection) -> None:
        with open_one() as cache:
            link.send("begins")
            cache.put("d/a", b"second")
            link.send("done")

    with open_one() as cache:
        cache.attach("d", "faulty://x", max_age=0, writable=True)
        with Child(write_slowly) as first, Child(write_next) as second:
            assert (first.receive(), second.receive()) == ("in it", "begins")
            cache.put("d/b", b"nobody is at that")
            assert not second.link.poll(0.1)
            first.send("go on")
            assert (first.receive(), second.receive()) == ("done", "done")
