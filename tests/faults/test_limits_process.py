"""A process at its limits: file size, open files, address space. They are its own: no block is lost and no
tier is taken out.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from forebay.config import MIB, Medium
from forebay.store import BlockStore
from tests.faults._child import run
from tests.faults._damage import MEDIA, CacheFolder, count, rebuilt
from tests.faults.conftest import MakeFolder

SIZE = 20_000


@contextmanager
def _limited(kind: int, value: int) -> Iterator[None]:
    """Lower a soft limit of this process."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@contextmanager
def _descriptors_left(count: int) -> Iterator[None]:
    """Leave this process so many descriptors, gaps in its table included."""
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    with _limited(resource.RLIMIT_NOFILE, highest + 2 + count):
        taken: list[int] = []
        with pytest.raises(OSError, match="Too many open files"):
            taken.extend(iter(lambda: os.open("/dev/null", os.O_RDONLY), None))
        for _ in range(count):
            os.close(taken.pop())
        try:
            yield
        finally:
            for descriptor in taken:
                os.close(descriptor)


def _in_child(act: Callable[[], None]) -> None:
    def body(link: Connection) -> None:
        act()

    run(body)


def _is_well(folder: CacheFolder, store: BlockStore) -> None:
    assert not store.status()["tiers"][0]["failed"]
    assert count(store, "misses_checksum") == 0
    folder.heal(store)
    assert store.check().ok


def _opening_fails(folder: CacheFolder) -> str | None:
    """What opening the store says, None where it works."""
    try:
        folder.open().close()
    except OSError as error:
        return str(error)
    return None


@pytest.mark.parametrize("medium", MEDIA)
def test_out_of_descriptors_reads_of_mapped_blocks_go_on(make_folder: MakeFolder, medium: Medium) -> None:
    folder = make_folder(medium)
    folder.made(300, SIZE)

    def act() -> None:
        with folder.open() as store:
            some = list(folder.sizes)[:60]
            assert folder.warm(store, some) == set(some)
            with _descriptors_left(0):
                mapped = folder.warm(store)
                assert mapped >= set(some)
                assert mapped < set(folder.sizes), "nothing was short"
                assert all(store.contains(key) for key in folder.sizes), "a block was given up"
                for number in range(60):
                    folder.put(store, b"more%d" % number, SIZE)
            assert folder.warm(store) == set(folder.sizes), "what was a miss is there again"
            _is_well(folder, store)

    _in_child(act)
    with folder.open() as store:
        assert folder.warm(store) >= {b"k0", b"k299"}


def test_out_of_descriptors_a_store_does_not_open_and_loses_nothing(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    folder.made(100, SIZE)

    def act() -> None:
        for spare in range(40):
            with _descriptors_left(spare):
                refused = _opening_fails(folder)
            if refused is None:
                break
            assert str(folder.path) in refused
        assert spare > 2

    _in_child(act)
    with folder.open() as store:
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)


@pytest.fixture
def full(make_folder: MakeFolder) -> CacheFolder:
    """Many segments on a disk."""
    folder = make_folder("SSD")
    folder.made(300, SIZE)
    return folder


def _loses_nothing(folder: CacheFolder, act: Callable[[BlockStore], object]) -> None:
    """A process acts without a descriptor to spare, and every block is there when it has some again."""

    def without_descriptors() -> None:
        with folder.open() as store:
            with _descriptors_left(0):
                act(store)
            rebuilt(store)
            assert folder.warm(store) == set(folder.sizes)

    _in_child(without_descriptors)


def _maintain(store: BlockStore) -> None:
    for _ in range(5):
        store.maintain()


def test_a_rebuild_out_of_descriptors_gives_up_no_segment(full: CacheFolder) -> None:
    full.index.unlink()
    _loses_nothing(full, _maintain)


def test_the_check_out_of_descriptors_repairs_nothing_away(full: CacheFolder) -> None:
    _loses_nothing(full, lambda store: store.check(repair=True))


def test_eviction_out_of_descriptors_drops_nothing_blindly(full: CacheFolder) -> None:
    def evict(store: BlockStore) -> None:
        store.set_retention(0, "lru")
        _maintain(store)

    _loses_nothing(full, evict)


@pytest.mark.parametrize("medium", MEDIA)
@pytest.mark.parametrize("limit", [64 << 10, MIB // 2])
def test_a_limit_on_the_size_of_files(make_folder: MakeFolder, medium: Medium, limit: int) -> None:
    """SIGXFSZ is ignored, as CPython does at its start; writes beyond the limit are errors."""
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    folder = make_folder(medium)
    folder.made(60, SIZE)

    def act() -> None:
        with folder.open() as store:
            with _limited(resource.RLIMIT_FSIZE, limit):
                admitted = [folder.put(store, b"more%d" % number, SIZE) for number in range(100)]
                assert not all(admitted)
                assert folder.warm(store) == set(folder.sizes)
                store.maintain()
            folder.fill(store, 50, SIZE, "again")
            _is_well(folder, store)

    _in_child(act)


def test_a_store_is_not_made_below_the_size_limit_and_says_so(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")

    def act() -> None:
        with _limited(resource.RLIMIT_FSIZE, 4096), pytest.raises(OSError, match=str(folder.path)):
            folder.open()
        with folder.open() as store:
            assert folder.fill(store, 5, SIZE)

    _in_child(act)


def test_no_address_space_for_maps_or_buffers(make_folder: MakeFolder) -> None:
    folder = make_folder("MEM", "64MiB")
    folder.made(1_000, SIZE)

    def act() -> None:
        with folder.open() as store:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            with _limited(resource.RLIMIT_AS, used + 4 * MIB):
                found = folder.warm(store)
                assert found
                assert all(store.contains(key) for key in folder.sizes), "a block was given up"
            assert folder.warm(store) == set(folder.sizes)
            _is_well(folder, store)

    _in_child(act)
