"""After a crash of the machine, simulated: another boot id, and no shared table.

What was sealed on a disk is there again, reads are served meanwhile, what was deleted stays deleted. A store
that was closed cleanly is trusted over any boot.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

import pytest

from forebay.config import MIB, Medium
from forebay.store import BlockStore
from tests.faults._child import Child, wait_until
from tests.faults._damage import CacheFolder, block, count, rebuilt
from tests.faults._damage_layout import IndexSuper, edited_super, load
from tests.faults.conftest import MakeFolder

SIZE = 20_000
OTHER_BOOT = b"11111111-2222-4333-8444-555555555555"


def _another_boot(folder: CacheFolder) -> None:
    with edited_super(folder.index) as super_block:
        assert not super_block.clean
        super_block.boot_id = OTHER_BOOT


def _no_shared_table(folder: CacheFolder) -> None:
    with edited_super(folder.index) as super_block:
        Path(super_block.live_path.decode()).unlink()


def _torn_table(folder: CacheFolder) -> None:
    with edited_super(folder.index) as super_block:
        os.truncate(super_block.live_path.decode(), 8192)


CRASHES: dict[str, Callable[[CacheFolder], None]] = {
    "another boot": _another_boot,
    "no shared table": _no_shared_table,
    "a torn shared table": _torn_table,
}


def _left(folder: CacheFolder, act: Callable[[BlockStore], None]) -> None:
    """Run act in a process that is killed with the store open."""

    def body(link: Connection) -> None:
        store = folder.open()
        act(store)
        link.send(folder.sizes)
        link.recv()

    with Child(body) as child:
        folder.sizes = child.receive()
        child.kill()
        child.exit_code()


@pytest.mark.parametrize("crash", CRASHES)
@pytest.mark.parametrize("medium", ["MEM", "SSD"])
def test_everything_in_the_segments_is_there_again(
    make_folder: MakeFolder, medium: Medium, crash: str
) -> None:
    folder = make_folder(medium)
    folder.left_dead(300, SIZE)
    CRASHES[crash](folder)
    with folder.open() as store:
        assert store.status()["index"]["rebuilding"]
        # Before anything was scanned: misses, no wrong byte, and new blocks are taken.
        assert folder.warm(store) == set()
        assert folder.put(store, b"meanwhile", SIZE)
        assert folder.warm(store) == {b"meanwhile"}
        store.maintain()
        part = folder.warm(store)
        assert {b"meanwhile"} < part < set(folder.sizes)
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)
        assert count(store, "rebuilt_segments") > 4


def test_who_looks_whether_the_table_was_left_behind_is_waited_for(make_folder: MakeFolder) -> None:
    """Whoever makes a table of its own looks at all in /dev/shm, and may lose its processor meanwhile."""
    folder = make_folder("SSD")
    folder.left_dead(40, SIZE)

    def reopen(link: Connection) -> bool:
        with folder.open() as store:
            return bool(store.status()["index"]["rebuilding"])

    def lock(file: BinaryIO, kind: int) -> None:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 1, 0))

    with open(load(folder.index, IndexSuper).live_path, "r+b") as looked_at:
        lock(looked_at, fcntl.F_WRLCK)
        with Child(reopen) as opener:
            with pytest.raises(TimeoutError):
                opener.exit_code(0.5)
            lock(looked_at, fcntl.F_UNLCK)
            assert opener.result() is False


def test_the_maintainer_rebuilds_by_itself_also_for_readers(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    folder.left_dead(100, SIZE)
    _another_boot(folder)
    with folder.open(maintainer=True) as store:
        wait_until(lambda: folder.warm(store) == set(folder.sizes), "all blocks are back")
        wait_until(lambda: not store.status()["index"]["rebuilding"], "the rebuild is at its end")


@pytest.mark.parametrize("crash", CRASHES)
def test_deleted_and_replaced_blocks_do_not_come_back(make_folder: MakeFolder, crash: str) -> None:
    """Old copies lie in other segments, in segments used anew, and where blocks were moved from."""
    folder = make_folder("SSD")

    def act(store: BlockStore) -> None:
        keys = folder.fill(store, 300, SIZE)
        for key in keys[::3]:
            assert store.delete(key)
            del folder.sizes[key]
        for key in keys[1::3]:
            assert folder.put(store, key, SIZE + 1)
        for _ in range(10):
            store.maintain()  # segments that are half dead are emptied; their files stay to be used again
        for key in keys[1::6]:
            assert store.delete(key)
            del folder.sizes[key]
        folder.put(store, b"last", SIZE)

    _left(folder, act)
    CRASHES[crash](folder)
    every = [f"k{number}".encode() for number in range(300)]
    with folder.open() as store:
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)
        assert {key for key in every if store.contains(key)} == set(folder.sizes) - {b"last"}


def test_a_block_deleted_during_a_rebuild_stays_deleted_over_the_next_crash(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    folder.left_dead(200, SIZE)
    _another_boot(folder)
    keys = sorted(folder.sizes)

    def act(store: BlockStore) -> None:
        for key in keys[:50]:
            store.delete(key)
            del folder.sizes[key]
        for key in keys[50:100]:
            assert folder.put(store, key, SIZE + 1)
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)

    _left(folder, act)
    for _ in range(2):
        _another_boot(folder)
        with folder.open() as store:
            rebuilt(store)
            assert folder.warm(store) == set(folder.sizes)
            assert not any(store.contains(key) for key in keys[:50])
        _left(folder, lambda store: None)
    folder.open().close()


def test_a_segment_used_anew_during_a_rebuild_is_newer_than_what_is_scanned_later(
    make_folder: MakeFolder,
) -> None:
    folder = make_folder("SSD")

    def act(store: BlockStore) -> None:
        for number in range(60):
            folder.put(store, b"freed%d" % number, SIZE, dataset=2)
        folder.fill(store, 300, SIZE)

    _left(folder, act)
    _another_boot(folder)
    folder.sizes = {key: size for key, size in folder.sizes.items() if not key.startswith(b"freed")}
    with folder.open() as store:
        store.maintain()
        store.free_dataset(2)
        late = [key for key in folder.sizes if not store.contains(key)][:40]
        assert len(late) == 40
        for key in late:
            assert folder.put(store, key, SIZE + 1)
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)


@pytest.mark.parametrize("medium", ["MEM", "SSD"])
def test_a_clean_close_is_trusted_over_another_boot(make_folder: MakeFolder, medium: Medium) -> None:
    folder = make_folder(medium)
    with folder.open() as store:
        folder.fill(store, 100, SIZE)
        folder.put(store, b"with a TTL", SIZE, ttl_s=3600)
    with edited_super(folder.index) as super_block:
        assert super_block.clean
        super_block.boot_id = OTHER_BOOT
    with folder.open() as store:
        assert not store.status()["index"]["rebuilding"]
        assert count(store, "rebuilt_segments") == 0
        assert folder.warm(store) == set(folder.sizes)


def test_a_reboot_that_emptied_the_memory_tier_costs_its_blocks_only(make_folder: MakeFolder) -> None:
    folder = make_folder("MEM")
    folder.made(100, SIZE)
    shutil.rmtree(folder.tiers[0].path)
    with edited_super(folder.index) as super_block:
        super_block.boot_id = OTHER_BOOT
    with folder.open() as store:
        assert folder.warm(store) == set()
        folder.heal(store)
        assert store.status()["tiers"][0]["used_bytes"] < 4 * MIB


def test_counters_go_on_over_restarts_and_rebuilds(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    folder.made(50, SIZE)
    with folder.open() as store:
        folder.warm(store)
    _left(folder, lambda store: None)
    _another_boot(folder)
    with folder.open() as store:
        assert count(store, "admitted") == 50
        assert count(store, "hits_ssd") == 50
    with folder.open() as store:
        rebuilt(store)
        assert block(b"k0", SIZE) == bytes(store.get(b"k0") or b"")
