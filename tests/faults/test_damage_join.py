"""Joining a store that others have open while something of it is gone, elsewhere, or another host's.

The joiner refuses, in time, and names the file or the mount; who has the store open goes on undisturbed.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from forebay.config import Medium
from tests.faults._child import Child, run
from tests.faults._damage import CacheFolder, flip
from tests.faults._damage_layout import edited_super
from tests.faults._damage_mounts import cover, mount, private_mounts
from tests.faults.conftest import MakeFolder

# Less than the half minute for which an opener waits, and more than a busy machine takes.
REFUSED_WITHIN_S = 20.0


def _holder(link: Connection, folder: CacheFolder) -> None:
    with folder.open() as store:
        link.send(folder.fill(store, 40, 20_000))
        link.recv()
        folder.heal(store)
        assert folder.put(store, b"one more", 20_000)
        folder.heal(store)


@contextmanager
def _held_open(folder: CacheFolder) -> Iterator[None]:
    """Another process has the store open, and at the end still reads and writes it."""
    with Child(_holder, folder) as child:
        folder.sizes |= dict.fromkeys(child.receive(), 20_000)
        yield
        child.send("go on")
        child.result()


@contextmanager
def _refused(pattern: str) -> Iterator[None]:
    begun = time.monotonic()
    with pytest.raises(OSError, match=pattern):
        yield
    assert time.monotonic() - begun < REFUSED_WITHIN_S


def _live_path(folder: CacheFolder) -> Path:
    with folder.open() as store:
        return Path(store.status()["index"]["live_path"])


@pytest.mark.parametrize("medium", ["MEM", "SSD"])
def test_the_shared_table_is_gone(make_folder: MakeFolder, medium: Medium) -> None:
    folder = make_folder(medium)
    with _held_open(folder):
        live = _live_path(folder)
        live.unlink()
        with _refused(re.escape(str(live))):
            folder.open()
    with folder.open() as store:
        assert folder.warm(store) == set(folder.sizes)


def test_the_shared_table_is_another_ones(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    with _held_open(folder):
        live = _live_path(folder)
        content = live.read_bytes()
        live.unlink()
        live.write_bytes(content)
        flip(live, 16)
        with _refused(re.escape(str(live)) + " is not the one"):
            folder.open()
        live.unlink()
    with folder.open() as store:
        assert folder.warm(store) == set(folder.sizes)


@pytest.mark.parametrize("name", ["identity", "index"])
def test_a_file_of_the_cache_directory_is_gone(make_folder: MakeFolder, name: str) -> None:
    folder = make_folder("SSD")
    with _held_open(folder):
        (folder.home / name).unlink()
        with _refused(name):
            folder.open()
        assert not (folder.home / name).exists(), "the joiner made a new one under the others' feet"
    with folder.open() as store:
        while store.status()["index"]["rebuilding"]:
            store.maintain()
        assert folder.warm(store) == set(folder.sizes)


def test_the_index_was_damaged_on_disk(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    with _held_open(folder):
        flip(folder.index, 8)
        with _refused("index is damaged"):
            folder.open()
        flip(folder.index, 8)
        folder.open().close()


def _joiner_elsewhere(link: Connection, folder: CacheFolder, covered: str) -> None:
    private_mounts()
    cover(covered)
    before = set(Path(covered).iterdir())
    try:
        folder.open().close()
    except OSError as error:
        link.send(str(error))
    else:
        link.send("opened")
    assert set(Path(covered).iterdir()) == before, "something was made on the wrong mount"


def test_a_joiner_without_the_mount_of_the_shared_table_names_it(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    with _held_open(folder):
        live = _live_path(folder)
        assert live.parent == Path("/dev/shm")
        with Child(_joiner_elsewhere, folder, "/dev/shm") as joiner:
            message = joiner.receive(REFUSED_WITHIN_S)
            joiner.result()
        assert str(live) in message
        assert "share that mount" in message


def test_a_joiner_without_the_mount_of_a_tier_names_it(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    with _held_open(folder):
        tier = folder.tiers[0].path
        with Child(_joiner_elsewhere, folder, tier) as joiner:
            message = joiner.receive(REFUSED_WITHIN_S)
            joiner.result()
        assert tier in message
        assert "share that mount" in message


def test_a_joiner_with_another_directory_in_a_tiers_place_refuses_it(make_folder: MakeFolder) -> None:
    """A v1 folder lies there too, but of another cache."""
    folder, other = make_folder("SSD"), make_folder("SSD")
    other.made(3)

    def body(link: Connection) -> None:
        private_mounts()
        mount("--bind", other.tiers[0].path, folder.tiers[0].path)
        with _refused(re.escape(folder.tiers[0].path)):
            folder.open()

    with _held_open(folder):
        run(body)
    with other.open() as store:
        assert other.warm(store) == set(other.sizes)


def test_the_other_mount_may_be_missing_where_nobody_has_it_open(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    folder.left_dead(40)

    def body(link: Connection) -> None:
        private_mounts()
        cover("/dev/shm")
        with folder.open() as store:
            while store.status()["index"]["rebuilding"]:
                store.maintain()
            assert folder.warm(store) == set(folder.sizes)

    run(body)
    with folder.open() as store:
        assert folder.warm(store) == set(folder.sizes)
    for path in Path("/dev/shm").glob(f"live-{(folder.home / 'identity').read_bytes()[:16].hex()}"):
        path.unlink()  # of the process that was killed; out of reach for the one that took over


def test_a_cache_in_use_by_another_kernel_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    with _held_open(folder):
        with edited_super(folder.index) as super_block:
            own, super_block.boot_id = super_block.boot_id, b"00000000-0000-4000-8000-000000000000"
        with _refused("in use by another kernel"):
            folder.open()
        with edited_super(folder.index) as super_block:
            super_block.boot_id = own
        folder.open().close()


def test_the_cache_directory_is_deleted_under_its_users(make_folder: MakeFolder) -> None:
    """Who has it open goes on; whoever comes later finds an empty cache, and neither sees the other's."""
    folder = make_folder("SSD")
    with folder.open() as before:
        folder.fill(before, 40, 20_000)
        shutil.rmtree(folder.path)
        assert folder.warm(before) == set(folder.sizes)
        assert folder.put(before, b"one more", 20_000)
        with pytest.raises(OSError, match=re.escape(folder.tiers[0].path)):
            folder.open()
        folder.heal(before)
    shutil.rmtree(folder.path)
    with folder.open() as after:
        assert folder.warm(after) == set()
        folder.heal(after)
