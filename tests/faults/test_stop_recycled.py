"""A process is stopped in the middle of a put or a read while everything around it is evicted and reused.

What it had in its hands stays put until it goes on: the bytes that it then reads are right, and those that
it then writes hit nobody else's.
"""

from __future__ import annotations

from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

from forebay.config import Medium
from forebay.store import BlockStore
from tests.faults._child import Child, run
from tests.faults._place import Place, assert_account, settle
from tests.faults._points import arm
from tests.faults._world import Block, World

READ: Final = Block(1, 50_000)
WRITTEN: Final = Block(2, 40_000)
JUNK: Final = 9
ROUNDS: Final = 3

WRITER_POINTS: Final = [
    "put.reserved",
    "put.written",
    "put.committed",
    "put.published",
    "segment.taken",
    "segment.acquired",
    "segment.opened",
]
NEW_FILE_POINTS: Final = ["segment.creating", "segment.created"]
LOCKED_POINTS: Final = ["index.locked", "index.add"]  # who meets the page waits for a second
FILLS: Final = [
    *((point, medium) for point in WRITER_POINTS + NEW_FILE_POINTS for medium in ("MEM", "SSD")),
    *((point, "MEM") for point in LOCKED_POINTS),
]


def small(folder: Path, medium: Medium = "MEM") -> Place:
    """Lay out a store of seven segments."""
    return Place.under(folder, medium=medium, quota="8MiB")


def use_up(store: BlockStore, rounds: int) -> None:
    """Use all segments over and over, and leave them free; after three uses they are written through maps."""
    for _ in range(rounds):
        reuse_all(store, 0)
    store.free_dataset(JUNK)
    settle(store)


def prepare(link: Connection, place: Place, rounds: int) -> None:
    """Body: use all segments, then put the block that will be read."""
    with place.open() as store:
        use_up(store, rounds)
        assert store.put(READ.key, READ.data)


def arm_at_work(point: str, folder: Path) -> None:
    """Let this process be stopped at its next passing; the failpoint is read when any store is opened."""
    arm(point, "stop")
    Place.under(folder / "other").open().close()


def reuse_all(store: BlockStore, version: int) -> list[Block]:
    """Evict what can be evicted, fill the store with junk, and return that."""
    for dataset in (0, JUNK):
        # A segment that the stopped process has in its hands cannot go.
        with suppress(OSError):
            store.free_dataset(dataset)
    settle(store)
    junk = [Block(1000 * version + i, 60_000, version, JUNK) for i in range(1000, 1200)]
    return [block for block in junk if store.put(block.key, block.data, dataset=JUNK)]


def reuse_around(link: Connection, place: Place) -> None:
    """Body: reuse everything while another process is stopped; look at all once it has ended."""
    world = World()
    with place.open() as store:
        link.send("open")
        for version in range(1, link.recv() + 1):
            junk = reuse_all(store, version)
            # What lies in a page that the stopped process has locked stays from round to round.
            for block in junk:
                world.may_put(block)
        assert junk
        link.send("reused")
        assert link.recv() == "ended"
        settle(store)
        for block in (READ, WRITTEN):
            world.may_put(block)
        world.committed = {block.key for block in junk}
        assert_account(place, store, world.verify(store))


def strike(place: Place, body: Child, rounds: int = ROUNDS) -> None:
    """Stop a process at its failpoint, reuse all around it so many times, and let it end."""
    with Child(reuse_around, place) as other:
        assert other.receive() == "open"
        body.send("go")
        assert body.wait_stopped()
        assert other.ask(rounds) == "reused"
        body.resume()
        body.result()
        other.send("ended")
        other.result()


@pytest.mark.parametrize(("point", "medium"), FILLS)
def test_a_stopped_writer_hits_nobodys_bytes(point: str, medium: Medium, memory_path: Path) -> None:
    place = small(memory_path, medium)
    run(prepare, place, 0 if point in NEW_FILE_POINTS else ROUNDS)

    def write(link: Connection) -> None:
        link.recv()
        arm(point, "stop")
        with place.open() as store:
            admitted = store.put(WRITTEN.key, WRITTEN.data)
            view = store.get(WRITTEN.key)
            if view is not None:
                with view:
                    assert view == WRITTEN.data
            else:
                assert not admitted or point == "put.published"

    with Child(write) as writer:
        strike(place, writer, 1 if point in LOCKED_POINTS else ROUNDS)


@pytest.mark.parametrize("point", ["put.reserved", "put.written", "put.committed"])
@pytest.mark.parametrize("way", ["put", "reserve"])
def test_a_stopped_writer_through_a_map_hits_nobodys_bytes(way: str, point: str, memory_path: Path) -> None:
    place = small(memory_path)
    run(prepare, place, 0)

    def write(link: Connection) -> None:
        link.recv()
        with place.open() as store:
            use_up(store, 5)
            arm_at_work(point, memory_path)
            if way == "put":
                admitted = store.put(WRITTEN.key, WRITTEN.data)
            else:
                reservation = store.reserve(WRITTEN.key, WRITTEN.length_bytes)
                with reservation as buffer:
                    buffer[:] = WRITTEN.data
                admitted = bool(reservation.admitted)
            with store.get(WRITTEN.key) or memoryview(b"") as view:
                assert view == (WRITTEN.data if admitted else b"")

    with Child(write) as writer:
        strike(place, writer)


def test_a_stopped_reader_reads_what_it_had_leased(memory_path: Path) -> None:
    place = small(memory_path)
    run(prepare, place, ROUNDS)

    def read(link: Connection) -> None:
        link.recv()
        arm("get.leased", "stop")
        with place.open() as store:
            # The first read verifies; the second is the one that stops, between its lease and its bytes.
            for _ in range(2):
                with store.get(READ.key) or memoryview(b"") as view:
                    assert view == READ.data

    with Child(read) as reader:
        strike(place, reader)


def test_a_stopped_mover_hits_nobodys_bytes(memory_path: Path) -> None:
    """The maintainer is stopped between the copy of a block and its publication, and the block is deleted."""
    place = small(memory_path)
    kept = [Block(100 + i, 60_000) for i in range(48)]

    def move(link: Connection) -> None:
        link.recv()
        arm("evict.copied", "stop")
        with place.open() as store:
            for block in kept:
                assert store.put(block.key, block.data)
            for block in kept[::2]:
                store.delete(block.key)
            while store.put((asked := Block(5000, 60_000)).key, asked.data, dataset=3):
                store.delete(asked.key)
            settle(store)
            for block in kept[1::2]:
                view = store.get(block.key)
                if view is not None:
                    with view:
                        assert view == block.data

    def delete_all(link: Connection) -> None:
        with place.open() as store:
            link.send("open")
            link.recv()
            deleted = [store.delete(block.key) for block in kept[1::2]]
            assert any(deleted)
            link.send("deleted")
            link.recv()
            settle(store)
            for block, gone in zip(kept[1::2], deleted, strict=True):
                assert not gone or store.get(block.key) is None, "what was deleted stays deleted"
            assert store.check().ok

    with Child(move) as mover, Child(delete_all) as deleter:
        assert deleter.receive() == "open"
        mover.send("go")
        assert mover.wait_stopped()
        assert deleter.ask("stopped") == "deleted"
        mover.resume()
        mover.result()
        deleter.send("ended")
        deleter.result()
