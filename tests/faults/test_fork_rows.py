"""Rows and descriptors over fork and exec: a full table, threads at work, subprocesses."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

import pytest

from forebay.store import BlockStore
from tests.faults._child import Child, run, wait_until
from tests.faults._held import BLOCK, held, recycle, still_right, take, with_block
from tests.faults._place import Place, settle
from tests.faults._world import Block

ROWS: Final = 2  # the smallest table
# Its own look at the folder is one of the entries, and gone when it comes to be read.
LIST_FILES: Final = """
import os
for name in os.listdir("/proc/self/fd"):
    if os.path.lexists(f"/proc/self/fd/{name}"):
        print(os.readlink(f"/proc/self/fd/{name}"))
"""


@pytest.fixture
def full(memory_path: Path) -> Place:
    """A store whose table has two rows, with the block in it."""
    return with_block(Place.under(memory_path, quota="8MiB"), rows=ROWS)


def occupy(link: Connection, place: Place) -> None:
    """Body: hold a row until told."""
    with place.open():
        link.send("open")
        link.recv()


def right(store: BlockStore, block: Block) -> bool:
    """Tell whether a block is there, with its bytes."""
    with store.get(block.key) or memoryview(b"") as view:
        return bool(view == block.data)


def wait_right(store: BlockStore, block: Block) -> None:
    """Hold a block to being there: beside a writer that lost its processor it may be missed for a moment."""
    wait_until(lambda: right(store, block), f"{block} is found")


def wait_put(store: BlockStore, block: Block) -> None:
    """Hold a block to being admitted, which it may not be for as long as a writer has no processor."""
    wait_until(lambda: store.put(block.key, block.data), f"{block} is admitted")


def test_with_a_full_table_a_child_reads_copies_and_changes_nothing(full: Place) -> None:
    def parent(link: Connection) -> None:
        with place_of(full) as store:

            def child(inner: Connection) -> None:
                assert store.status()["rows"]["own"] is None
                view = store.get(BLOCK.key)
                assert view is not None
                assert not view.zero_copy
                assert view == BLOCK.data
                assert not store.put(b"new", b"bytes")
                with pytest.raises(PermissionError, match="table of rows is full"):
                    store.delete(BLOCK.key)
                assert store.claim(b"new").leader, "it fetches for itself"

            run(child)
            assert right(store, BLOCK)
            assert store.status()["rows"]["used"] == ROWS

    with Child(occupy, full) as other:
        assert other.receive() == "open"
        run(parent)


def place_of(place: Place) -> BlockStore:
    """Open a store with the smallest table."""
    store = place.open(rows=ROWS)
    assert store.status()["rows"]["max"] == ROWS
    return store


def test_with_a_full_table_a_childs_view_outlives_its_parents_release(full: Place) -> None:
    def parent(link: Connection) -> None:
        with place_of(full) as store:
            view = take(store)

            def child(inner: Connection) -> bool:
                inner.send("forked")
                inner.recv()
                same = view == BLOCK.data
                view.release()
                inner.send("released")
                inner.recv()
                return same

            with Child(child) as heir:
                assert heir.receive() == "forked"
                view.release()
                recycle(store)
                assert held(store)[0] == 1
                assert heir.ask("compare") == "released"
                assert held(store) == (0, 0), "its release counts, though it has no row"
                heir.send("end")
                assert heir.result()

    with Child(occupy, full) as other:
        assert other.receive() == "open"
        run(parent)


def test_with_a_full_table_a_childs_view_outlives_its_parents_close(full: Place) -> None:
    """The parent's close must not look like the last one's: the child still reads."""

    def parent(link: Connection) -> bool:
        store = place_of(full)
        view = take(store)
        with Child(still_right, view) as heir:
            assert heir.receive() == "forked"
            link.send("forked")
            link.recv()
            view.release()
            store.close()
            run(evict_all, full)
            heir.send("compare")
            return bool(heir.result())

    with Child(occupy, full) as other, Child(parent) as older:
        assert other.receive() == "open"
        assert older.receive() == "forked"
        other.send("close")
        other.result()
        older.send("go on")
        assert older.result()


def evict_all(link: Connection, place: Place) -> None:
    """Body: open, evict everything and write all segments anew."""
    with place.open() as store:
        recycle(store)


def test_with_a_full_table_a_child_does_not_end_what_its_parent_began(full: Place) -> None:
    block = Block(7, 30_000)

    def parent(link: Connection) -> None:
        with place_of(full) as store:
            claim = store.claim(block.key)
            reservation = store.reserve(block.key, block.length_bytes)
            with memoryview(reservation) as buffer:
                buffer[:] = block.data

            def child(inner: Connection) -> None:
                claim.done()
                assert not reservation.commit()

            run(child)
            assert not store.claim(block.key).leader
            assert reservation.commit()
            assert right(store, block)
            assert held(store) == (0, 0)
            recycle(store)
            assert store.check().ok

    with Child(occupy, full) as other:
        assert other.receive() == "open"
        run(parent)


def test_rows_are_taken_again_when_their_owners_have_ended(full: Place) -> None:
    with Child(occupy, full) as one, Child(occupy, full) as two:
        assert one.receive() == two.receive() == "open"

        def late(link: Connection) -> object:
            with place_of(full) as store:
                assert right(store, BLOCK)
                return store.status()["rows"]["own"]

        assert run(late) is None
        one.kill()
        one.exit_code()
        assert run(late) is not None


def test_forks_while_threads_put_and_read(memory_path: Path) -> None:
    place = Place.under(memory_path, quota="512MiB")
    blocks = [Block(i, 3000) for i in range(100)]

    def parent(link: Connection) -> None:
        with place.open(maintainer=True) as store:
            for block in blocks:
                assert store.put(block.key, block.data)
            over, errors, puts = threading.Event(), [], [0]

            def work(first: int) -> None:
                try:
                    while not over.is_set():
                        block = Block(first + puts[0] % 500, 2000, puts[0])
                        store.put(block.key, block.data)
                        wait_right(store, blocks[puts[0] % len(blocks)])
                        puts[0] += 1
                except BaseException as error:  # noqa: BLE001 - shown by the main thread
                    errors.append(error)

            threads = [threading.Thread(target=work, args=(1000 * (n + 1),)) for n in range(2)]
            for thread in threads:
                thread.start()
            for number in range(40):
                run(read_and_put, store, blocks, number)
            over.set()
            for thread in threads:
                thread.join()
            assert errors == []
            assert puts[0] > 0
            assert store.status()["rows"]["used"] == 1
            assert store.status()["holders"] == []
            assert store.check().ok

    run(parent)


def read_and_put(link: Connection, store: BlockStore, blocks: list[Block], number: int) -> None:
    """Body: use the inherited store."""
    for block in blocks[::5]:
        wait_right(store, block)
    own = Block(100_000 + number, 2500)
    wait_put(store, own)
    wait_right(store, own)


def test_forks_leave_no_descriptor_behind(memory_path: Path) -> None:
    place = Place.under(memory_path)

    def parent(link: Connection) -> None:
        with place.open() as store:
            assert store.put(BLOCK.key, BLOCK.data)
            before = sorted(os.listdir("/proc/self/fd"))
            for _ in range(20):
                run(lambda inner: right(store, BLOCK))
            assert sorted(os.listdir("/proc/self/fd")) == before

    run(parent)


def test_forks_while_another_thread_opens_and_closes(memory_path: Path) -> None:
    """A child must not keep the locks of a store that was being opened or closed when it was forked."""
    place = Place.under(memory_path)

    def wait(link: Connection) -> None:
        link.send("forked")
        link.recv()

    def parent(link: Connection) -> None:
        over = threading.Event()
        opened = [0]

        def open_and_close() -> None:
            while not over.is_set():
                place.open().close()
                opened[0] += 1

        thread = threading.Thread(target=open_and_close)
        thread.start()
        with ExitStack() as stack:
            children = [stack.enter_context(Child(wait)) for _ in range(80)]
            assert {child.receive() for child in children} == {"forked"}
            wait_until(lambda: opened[0] > 10, "the other thread goes on, too")
            over.set()
            thread.join()
            # A child forked while it was open has it open too: with one descriptor for its own row, one to
            # look at others' with. No other child has a row.
            heirs = sum(files_of(child.pid).count("rows.lock") > 1 for child in children)
            with place.open() as store:
                assert store.status()["rows"]["used"] == 1 + heirs
                for child in children:
                    child.kill()
                    child.exit_code()
                assert store.status()["rows"]["used"] == 1

    run(parent)


def test_a_subprocess_inherits_neither_row_nor_descriptor(memory_path: Path) -> None:
    place = Place.under(memory_path)

    def parent(link: Connection) -> None:
        with place.open(maintainer=True) as store, ExitStack() as stack:
            assert store.put(BLOCK.key, BLOCK.data)
            assert store.maintain()
            view = stack.enter_context(take(store))
            script = [sys.executable, "-c", LIST_FILES]
            listed = subprocess.run(
                script, close_fds=False, capture_output=True, text=True, check=True
            ).stdout
            assert "pipe:" in listed
            assert str(memory_path) not in listed
            script = [sys.executable, "-c", "input()"]
            started = subprocess.Popen(script, stdin=subprocess.PIPE, close_fds=False)
            try:
                # Between fork and exec it holds what it inherited.
                wait_until(lambda: str(memory_path) not in files_of(started.pid), "exec")
                assert store.status()["rows"]["used"] == 1
                view.release()
                assert held(store) == (0, 0)
            finally:
                started.communicate(b"\n")

    run(parent)


def files_of(pid: int) -> str:
    """List what a process has open, but for what it closes meanwhile."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(path))
    return " ".join(found)


def test_a_childs_maintainer_is_its_own(memory_path: Path) -> None:
    """The thread does not come over fork; when its process is gone, the child takes the work over."""
    place = Place.under(memory_path)

    def parent(link: Connection) -> None:
        store = place.open(maintainer=True)
        assert store.put(BLOCK.key, BLOCK.data)
        if os.fork() == 0:
            link.send(store.maintain())
            link.recv()
            settle(store)
            link.send("maintained")
            link.recv()
            os._exit(0)
        link.recv()

    with Child(parent) as older:
        assert older.receive() is False, "the parent is the maintainer"
        older.kill()
        older.exit_code()
        assert older.ask("maintain") == "maintained"
        older.send("end")
