"""Who may get at a cache: its owner alone, a group if told so, readers where they were let in."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from forebay.config import MIB
from forebay.errors import ConfigError
from forebay.store import BlockStore, Tier
from tests.faults._child import Child, run
from tests.faults._damage import CacheFolder, count, nothing_left

SIZE = 20_000
GROUP, MEMBER, STRANGER = 54_321, 54_322, 54_323


@pytest.fixture
def folder(memory_path: Path) -> Iterator[CacheFolder]:
    """A cache below a folder that everybody may enter."""
    memory_path.chmod(0o755)
    tiers = (Tier(str(memory_path / "mem"), "16MiB", "MEM"), Tier(str(memory_path / "ssd"), "64MiB", "SSD"))
    folder = CacheFolder(memory_path / "cache", tiers)
    with nothing_left(folder):
        yield folder


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def _everything(folder: CacheFolder) -> dict[str, os.stat_result]:
    """All that the store made, by path."""
    roots = [folder.path, *(Path(tier.path) for tier in folder.tiers)]
    return {str(path): path.lstat() for root in roots for path in [root, *root.rglob("*")]}


def _use(folder: CacheFolder, store: BlockStore) -> None:
    """Make the store write every kind of file that it has."""
    folder.fill(store, 100, SIZE)
    for number in range(700):
        folder.put(store, b"more%d" % number, SIZE, dataset=2)
    for medium_bytes in (MIB, 2 * MIB):
        with store.reserve_file(b"file%d" % medium_bytes, medium_bytes, block_bytes=256 << 10) as reservation:
            for number in range(medium_bytes // (256 << 10)):
                reservation.write(number, b"file%d/%d" % (medium_bytes, number), bytes(256 << 10))
    store.maintain()


def _modes(folder: CacheFolder) -> set[tuple[str, int]]:
    return {
        ("directory" if stat.S_ISDIR(found.st_mode) else "file", stat.S_IMODE(found.st_mode))
        for found in _everything(folder).values()
    }


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_all_that_is_made_is_the_owners_alone(folder: CacheFolder, mask: int) -> None:
    with _umask(mask):
        with folder.open() as store:
            _use(folder, store)
            assert _modes(folder) == {("directory", 0o700), ("file", 0o600)}
        with folder.open() as store:
            folder.warm(store)
        assert _modes(folder) == {("directory", 0o700), ("file", 0o600)}


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_all_that_is_made_for_a_group_is_the_groups(folder: CacheFolder, mask: int) -> None:
    with _umask(mask), folder.open(shared_group=GROUP) as store:
        _use(folder, store)
        assert _modes(folder) == {("directory", 0o2770), ("file", 0o660)}
        assert {found.st_gid for found in _everything(folder).values()} == {GROUP}
        live = os.stat(store.status()["index"]["live_path"])
        assert (stat.S_IMODE(live.st_mode), live.st_gid) == (0o660, GROUP)


def _become(user: int, groups: list[int]) -> None:
    os.setgroups(groups)
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def _as_user(user: int, groups: list[int], act: Callable[[], None]) -> None:
    def body(link: Connection) -> None:
        os.umask(0o077)
        _become(user, groups)
        act()

    run(body)


@pytest.mark.parametrize("open_meanwhile", [True, False])
def test_members_of_the_group_share_it_and_others_do_not(folder: CacheFolder, open_meanwhile: bool) -> None:
    owner = folder.open(shared_group=GROUP)
    folder.fill(owner, 50, SIZE)
    if not open_meanwhile:
        owner.close()

    def member() -> None:
        with BlockStore(folder.path, maintainer=False) as store:
            assert folder.warm(store) == set(folder.sizes)
            assert store.delete(b"k0")
            for number in range(200):
                assert store.put(b"theirs%d" % number, bytes(SIZE))
            store.maintain()
        assert _modes(folder) == {("directory", 0o2770), ("file", 0o660)}
        assert {found.st_gid for found in _everything(folder).values()} == {GROUP}

    def stranger() -> None:
        with pytest.raises(PermissionError):
            BlockStore(folder.path)
        with pytest.raises(PermissionError):
            BlockStore(folder.path, read_only=True)

    _as_user(MEMBER, [GROUP], member)
    _as_user(STRANGER, [], stranger)
    del folder.sizes[b"k0"]
    owner.close()
    with folder.open() as store:
        assert folder.warm(store) == set(folder.sizes)
        assert store.contains(b"theirs0")


def test_without_a_group_another_user_is_refused(folder: CacheFolder) -> None:
    folder.made(10, SIZE)

    def stranger() -> None:
        before = set(_everything(folder))
        with pytest.raises(PermissionError) as caught:
            folder.open()
        assert str(folder.path) in str(caught.value)
        assert set(_everything(folder)) == before

    _as_user(STRANGER, [], stranger)


def test_who_may_only_read_gets_copies_and_changes_nothing(folder: CacheFolder) -> None:
    with folder.open() as store:
        folder.fill(store, 50, SIZE)
        live = Path(store.status()["index"]["live_path"])
        for path, found in _everything(folder).items():
            os.chmod(path, 0o755 if stat.S_ISDIR(found.st_mode) else 0o644)
        live.chmod(0o644)

        def reader() -> None:
            with BlockStore(folder.path, read_only=True) as store:
                assert folder.warm(store) == set(folder.sizes)
                view = store.get(b"k0")
                assert view is not None
                assert not view.zero_copy
                view.release()
                with pytest.raises(PermissionError):
                    store.put(b"new", b"data")
                with pytest.raises(PermissionError):
                    store.delete(b"k0")
                assert store.status()["read_only"]

        before = {path: (found.st_mode, found.st_uid) for path, found in _everything(folder).items()}
        _as_user(STRANGER, [], reader)
        after = {path: (found.st_mode, found.st_uid) for path, found in _everything(folder).items()}
        assert after == before
        assert folder.warm(store) == set(folder.sizes)
        assert count(store, "deleted") == 0


def test_a_group_that_does_not_exist_is_named(folder: CacheFolder) -> None:
    with pytest.raises(ConfigError, match="no-such-group"):
        folder.open(shared_group="no-such-group")


def test_another_caches_tier_is_not_taken_over(folder: CacheFolder, memory_path: Path) -> None:
    """Neither while the other is open, nor while it is closed, nor while only its cache directory is gone."""
    thief = CacheFolder(memory_path / "thief", folder.tiers)

    def holder(link: Connection) -> None:
        with folder.open() as store:
            folder.fill(store, 50, SIZE)
            link.send(folder.sizes)
            link.recv()
            folder.heal(store)

    with Child(holder) as child:
        folder.sizes = child.receive()
        with pytest.raises(ConfigError, match=str(folder.path)):
            thief.open()
        aside = folder.path.with_name("aside")
        folder.path.rename(aside)
        with pytest.raises(OSError, match="in use"):
            thief.open()
        aside.rename(folder.path)
        child.send("go on")
        child.result()
    with pytest.raises(ConfigError, match=str(folder.path)):
        thief.open()
    with folder.open() as store:
        assert folder.warm(store) == set(folder.sizes)
