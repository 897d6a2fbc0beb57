"""A disk that fails: on write, on read, on sync, read-only, unplugged, its directory removed.

The tier is out within five seconds; reads go on, from the other tier or as misses, and puts go elsewhere;
once the disk is well three clean probes bring it back.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from forebay.config import MIB
from forebay.store import Tier
from forebay.testing.tier import FaultyTier
from tests.faults._child import Child, wait_until
from tests.faults._damage import CacheFolder, block, nothing_left
from tests.faults._damage_inject import failing

SIZE = 20_000


def _body(link: Connection, folder: CacheFolder) -> None:
    """Keep the store open with its maintainer, and do as told."""
    with folder.open(maintainer=True) as store:
        while (order := link.recv()) is not None:
            match order:
                case ("put", prefix, number):
                    names = [f"{prefix}{n}".encode() for n in range(number)]
                    link.send([key for key in names if folder.put(store, key, SIZE)])
                case ("read",):
                    link.send(folder.warm(store))
                case ("know", sizes):
                    folder.sizes.update(sizes)
                    link.send(None)
                case ("status",):
                    link.send(store.status())


class Process:
    """A process with the store open."""

    def __init__(self, child: Child, folder: CacheFolder) -> None:
        self.child = child
        self.folder = folder

    def put(self, prefix: str, number: int) -> list[bytes]:
        """Put blocks; returns the keys of those that were admitted."""
        keys: list[bytes] = self.child.ask(("put", prefix, number))
        self.folder.sizes |= dict.fromkeys(keys, SIZE)
        return keys

    def read(self) -> set[bytes]:
        """Read all that any process put; the set of hits. The child fails on a wrong byte."""
        self.child.ask(("know", self.folder.sizes))
        found: set[bytes] = self.child.ask(("read",))
        return found

    def status(self) -> dict[str, Any]:
        """The store's status as it sees it."""
        status: dict[str, Any] = self.child.ask(("status",))
        return status

    def failed(self, tier: int) -> bool:
        """Whether a tier is out."""
        return bool(self.status()["tiers"][tier]["failed"])

    def wait_out(self, tier: int) -> None:
        """Use the store until the tier is out, which its third error does: no clock is waited for."""
        number = iter(range(1 << 30))

        def out() -> bool:
            self.put(f"meanwhile{next(number)}-", 5)
            self.read()
            return self.failed(tier)

        wait_until(out, "the tier is taken out")

    def wait_back(self, tier: int) -> None:
        """Wait until it is back; the maintainer probes by itself."""
        wait_until(lambda: not self.failed(tier), "the tier comes back")


@contextmanager
def opened(folder: CacheFolder) -> Iterator[Process]:
    """A process with the store open; it must end well."""
    with Child(_body, folder) as child:
        yield Process(child, folder)
        child.send(None)
        child.result()


def _keys_of_tier(folder: CacheFolder, number: int) -> set[bytes]:
    contents = [path.read_bytes() for path in folder.segments(number)]
    return {key for key in folder.sizes if any(block(key, SIZE) in content for content in contents)}


def _files_of_tier(folder: CacheFolder, number: int) -> list[Path]:
    home = folder.tier_home(number)
    return [*(home / f"seg-{n:06}" for n in range(16)), home / ".probe"]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CacheFolder]:
    """Two disks side by side."""
    tiers = tuple(Tier(str(tmp_path / name), "16MiB", "SSD") for name in ("good", "bad"))
    folder = CacheFolder(tmp_path / "cache", tiers)
    with nothing_left(folder):
        yield folder


BAD = 1


def _is_well(process: Process) -> None:
    """Everything can be put and read, on both disks."""
    process.put("afterwards", 150)
    assert process.read() == set(process.folder.sizes)
    assert min(tier["committed_blocks"] for tier in process.status()["tiers"]) > 20


def _comes_back(process: Process, *others: Process) -> None:
    """The bad disk is used again, by the other processes too, but for the blocks that it has lost."""
    sizes = process.folder.sizes
    process.wait_back(BAD)
    for key in set(sizes) - process.read():
        del sizes[key]
    _is_well(process)
    for other in others:
        assert other.read() == set(sizes)
        other.put("by the other", 50)
        assert process.read() == set(sizes)


def test_eio_on_write(folder: CacheFolder) -> None:
    with opened(folder) as process:
        assert len(process.put("early", 200)) == 200
        on_bad = _keys_of_tier(folder, BAD)
        assert 20 < len(on_bad) < 180
        with failing(process.child.pid, "pwrite64,pwritev", "EIO", _files_of_tier(folder, BAD)):
            process.wait_out(BAD)
            admitted = process.put("late", 50)
            assert len(admitted) == 50, "the other disk takes them"
            assert process.read() >= set(admitted) | (set(folder.sizes) - on_bad)
            assert process.status()["counters"]["io_errors"] >= 3
            assert "Input/output error" in process.status()["tiers"][BAD]["cause"]
        process.wait_back(BAD)
        assert on_bad <= process.read(), "what was on it is there again"
        _is_well(process)


def test_eio_on_read(folder: CacheFolder) -> None:
    with opened(folder) as process:
        process.put("early", 200)
        on_bad = _keys_of_tier(folder, BAD)
        with failing(process.child.pid, "pread64", "EIO", _files_of_tier(folder, BAD)):
            assert process.read() >= set(folder.sizes) - on_bad
            process.wait_out(BAD)
            assert process.status()["counters"]["misses_io"] > 0
        process.wait_back(BAD)
        # A block whose read failed was dropped; the others were not touched.
        lost = set(folder.sizes) - process.read()
        assert len(lost) < 20
        for key in lost:
            del folder.sizes[key]
        _is_well(process)


def test_eio_on_sync_gives_up_what_may_not_have_reached_the_disk(folder: CacheFolder) -> None:
    """After a failed sync the pages count as clean: once dropped, older bytes would come back unseen."""
    with opened(folder) as process, ExitStack() as fault:
        fault.enter_context(failing(process.child.pid, "fdatasync", "EIO", _files_of_tier(folder, BAD)))
        process.put("early", 400)
        on_bad = _keys_of_tier(folder, BAD)
        wait_until(lambda: len(on_bad - process.read()) > 40, "unsynced segments are given up")
        fault.close()
        _comes_back(process)


@pytest.fixture
def disk(folder: CacheFolder) -> Iterator[FaultyTier]:
    """The bad one is a file system of its own."""
    with FaultyTier(Path(folder.tiers[BAD].path), 40 * MIB, kind="ext4") as disk:
        yield disk


def test_a_disk_that_goes_read_only_and_is_replaced(disk: FaultyTier, folder: CacheFolder) -> None:
    with opened(folder) as process, opened(folder) as other:
        process.put("early", 200)
        on_bad = _keys_of_tier(folder, BAD)
        assert other.read() == set(folder.sizes)
        disk.fail()
        process.wait_out(BAD)
        assert len(process.put("late", 50)) == 50
        assert process.read() >= set(folder.sizes) - on_bad
        assert other.read() >= set(folder.sizes) - on_bad
        disk.unplug()
        assert list(disk.path.iterdir()) == []
        for _ in range(5):
            assert process.failed(BAD), "an empty mount point is not the disk"
        assert list(disk.path.iterdir()) == [], "something was written below the mount point"
        disk.plug_in()
        _comes_back(process, other)
        assert any(disk.path.rglob("seg-*"))


def test_a_tiers_directory_removed_under_its_users(folder: CacheFolder) -> None:
    with opened(folder) as process, opened(folder) as other:
        process.put("early", 200)
        on_bad = _keys_of_tier(folder, BAD)
        assert other.read() == set(folder.sizes)
        on_good = set(folder.sizes) - on_bad
        shutil.rmtree(folder.tiers[BAD].path)
        process.wait_out(BAD)
        assert process.read() >= on_good
        assert len(other.put("late", 50)) == 50
        assert not Path(folder.tiers[BAD].path).exists(), "only who opens the store makes the directory"
        Path(folder.tiers[BAD].path).mkdir()
        _comes_back(process, other)


def test_a_disk_that_is_missing_at_the_start_comes_back_with_its_blocks(
    folder: CacheFolder, tmp_path: Path
) -> None:
    with folder.open() as store:
        folder.fill(store, 200, SIZE)
    on_bad = _keys_of_tier(folder, BAD)
    home = Path(folder.tiers[BAD].path)
    home.rename(tmp_path / "elsewhere")
    home.write_bytes(b"no directory")
    with opened(folder) as process:
        assert process.failed(BAD)
        assert process.read() == set(folder.sizes) - on_bad
        assert len(process.put("late", 50)) == 50
        home.unlink()
        (tmp_path / "elsewhere").rename(home)
        process.wait_back(BAD)
        assert process.read() == set(folder.sizes)
        _is_well(process)


def test_all_disks_gone_leaves_a_store_of_misses(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path / "cache", (Tier(str(tmp_path / "only"), "16MiB", "SSD"),))
    with opened(folder) as process:
        process.put("early", 100)
        shutil.rmtree(folder.tiers[0].path)
        process.wait_out(0)
        assert process.put("late", 10) == []
        assert process.read() == set()
        Path(folder.tiers[0].path).mkdir()
        process.wait_back(0)
        folder.sizes.clear()
        assert len(process.put("again", 100)) == 100
        assert process.read() == set(folder.sizes)
