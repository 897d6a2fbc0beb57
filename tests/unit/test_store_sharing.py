"""Several openers: one that may only read, one without a row, and a group."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forebay.config import KIB, Tier
from forebay.errors import ConfigError
from forebay.store import BlockStore
from tests.unit._stores import Stores, counting, noise

DATA = noise(200_000)

Call = Callable[[BlockStore], object]

CHANGES: list[Call] = [
    lambda store: store.delete(b"k"),
    lambda store: store.pin(b"k"),
    lambda store: store.unpin(b"k"),
    lambda store: store.expire(b"k", 5),
    lambda store: store.set_retention(0, "lru"),
    lambda store: store.free_dataset(0),
    lambda store: store.maintain(),
]


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    store = stores.open(rows=2)
    store.put(b"k", DATA)
    return store


@pytest.fixture(params=["read-only", "without a row"])
def reader(request: pytest.FixtureRequest, stores: Stores, store: BlockStore) -> BlockStore:
    """An opener that can read and no more: because it asked for that, or because the table is full."""
    if request.param == "read-only":
        return stores.reopen(read_only=True)
    second = stores.reopen()
    assert second.status()["rows"] == {"own": 1, "used": 2, "max": 2}
    reader = stores.reopen()
    assert reader.status()["rows"] == {"own": None, "used": 2, "max": 2}
    return reader


def test_it_reads_by_copies(store: BlockStore, reader: BlockStore) -> None:
    for _ in range(2):
        view = reader.get(b"k")
        assert view is not None
        assert not view.zero_copy
        assert view == DATA
    assert reader.readinto(b"k", bytearray(10), 100) == 10
    assert reader.get(b"absent") is None
    assert reader.contains(b"k")
    assert reader.get_file(b"k") is None
    assert store.status()["holders"] == []


def test_it_sees_what_others_do(store: BlockStore, reader: BlockStore) -> None:
    assert reader.get(b"new") is None
    store.put(b"new", b"value", ttl_s=100)
    assert reader.get(b"new") == b"value"
    store.put(b"new", b"other", ttl_s=100)
    assert reader.get(b"new") == b"other"
    store.advance_clock(102)
    assert reader.get(b"new") is None
    store.delete(b"k")
    assert reader.get(b"k") is None


def test_its_copies_stay_good_when_the_segment_is_used_again(store: BlockStore, reader: BlockStore) -> None:
    view = reader.get(b"k")
    store.free_dataset(0)
    for number in range(1000):
        store.put(b"%d" % number, noise(50_000, number))
    assert view == DATA
    assert reader.get(b"k") is None


def test_it_reads_under_every_retention(store: BlockStore, reader: BlockStore) -> None:
    for dataset, retention in enumerate(("epoch", "s3fifo", "lru")):
        store.set_retention(dataset, retention)
        store.put(b"%d" % dataset, DATA, dataset=dataset)
        store.advance_clock(5)
        for _ in range(3):
            assert reader.get(b"%d" % dataset) == DATA


@pytest.mark.parametrize("change", CHANGES)
def test_it_changes_nothing(store: BlockStore, reader: BlockStore, change: Call) -> None:
    with pytest.raises(PermissionError) as refused:
        change(reader)
    assert refused.value.errno == errno.EROFS
    assert reader.views == 0
    assert store.get(b"k") == DATA
    assert store.check().ok


def test_a_put_is_refused_when_read_only_and_not_admitted_without_a_row(
    store: BlockStore, reader: BlockStore
) -> None:
    if reader.read_only:
        with pytest.raises(PermissionError, match="read-only"):
            reader.put(b"new", b"value")
    else:
        assert reader.put(b"new", b"value") is False
    assert store.get(b"new") is None


def test_a_reader_through_has_a_buffer_and_fetches_for_itself(store: BlockStore, reader: BlockStore) -> None:
    reservation = reader.reserve(b"new", 5)
    with reservation as buffer:
        buffer[:] = b"value"
    assert reservation.admitted is False
    with reader.reserve_file(b"file", 3 << 20) as file:
        assert not file.admitted
        assert not file.write(0, b"block", bytes(64 * KIB))
    assert not file.complete
    mine, theirs = reader.claim(b"new"), store.claim(b"new")
    assert mine.leader
    assert theirs.leader
    mine.progress()
    mine.done()


def test_it_has_status_and_check(store: BlockStore, reader: BlockStore) -> None:
    assert reader.status()["blocks"] == 1
    assert reader.status()["read_only"] is reader.read_only
    assert reader.check(repair=True).ok


def test_a_read_only_opener_does_not_move_the_clock(stores: Stores, store: BlockStore) -> None:
    with pytest.raises(PermissionError):
        stores.reopen(read_only=True).advance_clock(5)


def test_a_row_that_is_given_up_is_taken_by_the_next(stores: Stores, store: BlockStore) -> None:
    second = stores.reopen()
    assert stores.reopen().status()["rows"]["own"] is None
    second.close()
    assert stores.reopen().status()["rows"]["own"] == 1


def test_a_view_of_a_reader_outlives_everybody(stores: Stores, store: BlockStore, reader: BlockStore) -> None:
    view = reader.get(b"k")
    reader.close()
    stores.close()
    assert view == DATA


def test_nobody_has_it_open_is_said_at_once(stores: Stores, store: BlockStore) -> None:
    store.close()
    with pytest.raises(OSError, match="nobody has it open") as refused:
        stores.reopen(read_only=True)
    assert refused.value.filename == str(stores.path)
    assert stores.reopen().get(b"k") == DATA


def test_read_only_opens_what_there_is_and_makes_nothing(stores: Stores) -> None:
    with pytest.raises(OSError, match="cannot") as refused:
        stores.reopen(read_only=True)
    assert refused.value.filename == str(stores.path)
    assert not stores.path.exists()


def modes(path: Path) -> set[str]:
    return {stat.filemode(found.lstat().st_mode) for found in (path, *path.rglob("*"))}


def everything(stores: Stores, store: BlockStore) -> set[str]:
    live = Path(store.status()["index"]["live_path"])
    return modes(stores.path) | modes(Path(stores.tier().path)) | modes(live)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_a_cache_is_its_owner_s_alone_by_default(stores: Stores, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = stores.open()
        store.put(b"k", DATA)
    finally:
        os.umask(before)
    assert everything(stores, store) == {"drwx------", "-rw-------"}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("name", [True, False])
def test_a_shared_group_has_every_file_whatever_the_umask(stores: Stores, umask: int, name: bool) -> None:
    before = os.umask(umask)
    try:
        store = stores.open(shared_group=group_name() if name else os.getgid())
        store.put(b"k", DATA)
        with store.reserve_file(b"file", 2 << 20) as file:
            file.finish(keep=False)
        # Who opens it later without saying so is in the group all the same.
        other = stores.reopen()
        for number in range(200):
            other.put(b"%d" % number, bytes(50_000), dataset=1)
    finally:
        os.umask(before)
    assert everything(stores, store) == {"drwxrws---", "-rw-rw----"}
    for path in (stores.path, *stores.path.rglob("*")):
        assert path.stat().st_gid == os.getgid()


def group_name() -> str:
    import grp

    return grp.getgrgid(os.getgid()).gr_name


def fork_and_read(store: BlockStore, answers: Any) -> None:
    view = store.get(b"k")
    answers.put((store.status()["rows"]["own"], view is not None and view == DATA))


def test_a_fork_without_a_free_row_reads_by_copies(stores: Stores, store: BlockStore) -> None:
    """With two rows the first child gets the second, and what the child forks gets none."""
    stores.reopen()
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=fork_and_read, args=(store, answers))
    changes = counting(store)
    child.start()
    assert answers.get(timeout=30) == (None, True)
    child.join(30)
    assert child.exitcode == 0
    assert changes()["hits_mem"] == 1
    assert store.get(b"k") == DATA


def test_opening_one_cache_leaves_the_shared_table_of_another_that_is_in_use(stores: Stores) -> None:
    """Even when that one's folder cannot be seen from here, as from another container."""
    store = stores.open(stores.tier(medium="SSD"))
    store.put(b"k", DATA)
    out_of_sight = stores.path.with_name("out of sight")
    stores.path.rename(out_of_sight)
    stores.open(stores.tier(medium="SSD", name="other"), path=stores.path.with_name("other"))
    out_of_sight.rename(stores.path)
    assert stores.reopen().get(b"k") == DATA


def test_a_copied_cache_directory_does_not_get_the_tiers_of_the_first(
    tmp_path: Path, memory_path: Path
) -> None:
    tiers = [Tier(str(memory_path), "16MiB", "MEM")]
    with BlockStore(tmp_path / "first", tiers) as store:
        assert store.put(b"key", b"value")
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    with pytest.raises(ConfigError, match="is a copy"):
        BlockStore(tmp_path / "copy")
    (tmp_path / "first").rename(tmp_path / "moved")
    with BlockStore(tmp_path / "moved") as store:
        assert store.get(b"key") == b"value"
