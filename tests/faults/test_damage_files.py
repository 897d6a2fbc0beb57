"""Segment files cut short, punched or replaced, while closed and while another process has them open.

What lies in the file's place is never followed, written to or waited for. The blocks of that segment are
misses, all others stay, and the tier goes on admitting and evicting.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from forebay.config import KIB, MIB, Medium
from tests.faults._child import Child
from tests.faults._damage import INDEXES, MEDIA, CacheFolder, block, count, expect_lost, punch, rebuilt
from tests.faults.conftest import MakeFolder

ANSWER_S = 20.0
SIZE = 20_000


def _keys_in(folder: CacheFolder, path: Path) -> set[bytes]:
    content = path.read_bytes()
    return {key for key, size in folder.sizes.items() if block(key, size) in content}


def _victim(folder: CacheFolder) -> tuple[Path, set[bytes]]:
    """The first of several segments, and the keys in it."""
    path = folder.segments()[0]
    keys = _keys_in(folder, path)
    assert 1 < len(keys) < len(folder.sizes)
    return path, keys


# ---- while closed ----


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("left", ["nothing", "superblock", "half", "all but a byte"])
@pytest.mark.parametrize("medium", MEDIA)
def test_a_segment_truncated_at_rest(make_folder: MakeFolder, medium: Medium, left: str, index: str) -> None:
    folder = make_folder(medium)
    folder.made(120)
    path, inside = _victim(folder)
    size = path.stat().st_size
    os.truncate(
        path, {"nothing": 0, "superblock": 4 * KIB, "half": size // 2, "all but a byte": size - 1}[left]
    )
    expect_lost(folder, index, inside)


@pytest.mark.parametrize("medium", MEDIA)
def test_a_hole_at_rest(make_folder: MakeFolder, medium: Medium) -> None:
    folder = make_folder(medium)
    folder.made(120)
    path, inside = _victim(folder)
    punch(path, 256 * KIB, 64 * KIB)
    hit = inside - _keys_in(folder, path)
    assert len(hit) >= 64 * KIB // SIZE
    with folder.open() as store:
        assert folder.warm(store) == set(folder.sizes) - hit
        assert count(store, "misses_checksum") > 0
        folder.heal(store)


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("medium", MEDIA)
def test_a_hole_over_the_record_table(make_folder: MakeFolder, medium: Medium, index: str) -> None:
    folder = make_folder(medium)
    folder.made(120)
    path, inside = _victim(folder)
    size = path.stat().st_size
    punch(path, size - 8 * KIB, 8 * KIB)
    expect_lost(folder, index, inside)


def _remove(path: Path) -> None:
    path.unlink()


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _full_directory(path: Path) -> None:
    _directory(path)
    (path / "of somebody else").write_bytes(b"kept")


def _symlink(path: Path) -> None:
    outside = path.parent.parent / f"outside-{path.name}"
    shutil.copyfile(path, outside)
    path.unlink()
    path.symlink_to(outside)


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.parent.parent / "made by following")


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _other_product(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


REPLACEMENTS: dict[str, Callable[[Path], None]] = {
    "nothing": _remove,
    "a directory": _directory,
    "a directory with a file": _full_directory,
    "a symbolic link": _symlink,
    "a dangling link": _dangling,
    "a FIFO": _fifo,
    "random bytes": _other_product,
}


@contextmanager
def _outside_untouched(folder: CacheFolder) -> Iterator[None]:
    """What lies outside of the segments' folder is neither changed nor made."""
    home = folder.tier_home().parent
    before = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    yield
    assert {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()} == before


def _goes_on(folder: CacheFolder) -> None:
    """Fill the tier twice over, so that every segment's number is used, evicted and used again."""
    with folder.open() as store:
        for dataset in (0, 7):
            store.set_retention(dataset, "lru")
        quota_blocks = folder.tiers[0].quota_bytes // SIZE
        admitted = 0
        for number in range(2 * quota_blocks):
            admitted += store.put(b"more%d" % number, bytes(SIZE), dataset=7)
            if number % 32 == 0:
                store.maintain()
        assert admitted > 1.5 * quota_blocks
        status = store.status()["tiers"][0]
        assert not status["failed"]
        assert status["used_bytes"] > 0.5 * status["quota_bytes"]


@pytest.mark.parametrize("index", INDEXES)
@pytest.mark.parametrize("what", REPLACEMENTS)
@pytest.mark.parametrize("medium", MEDIA)
def test_a_segment_replaced_at_rest(make_folder: MakeFolder, medium: Medium, what: str, index: str) -> None:
    folder = make_folder(medium)
    folder.made(120)
    path, inside = _victim(folder)
    REPLACEMENTS[what](path)
    if index == "lost":
        folder.index.unlink()
    with _outside_untouched(folder):
        with folder.open() as store:
            rebuilt(store)
            assert folder.warm(store) == set(folder.sizes) - inside
            folder.heal(store)
        _goes_on(folder)
    if what == "a directory with a file":
        assert (path / "of somebody else").read_bytes() == b"kept"
        shutil.rmtree(path)


# ---- while open ----


def _reader(link: Connection, folder: CacheFolder, options: dict[str, object]) -> None:
    """Open, then read everything each time it is asked to; the set of hits is the answer."""
    with folder.open(**options) as store:
        while link.recv():
            link.send(folder.warm(store))


@contextmanager
def _reading_process(folder: CacheFolder, **options: object) -> Iterator[Child]:
    with Child(_reader, folder, options) as child:
        yield child
        child.send(None)
        child.result(ANSWER_S)  # ended by itself: no signal, no wrong byte


@pytest.mark.parametrize("left", ["nothing", "half"])
def test_a_segment_truncated_while_it_is_read(make_folder: MakeFolder, left: str) -> None:
    folder = make_folder("SSD")
    folder.made(120)
    path, inside = _victim(folder)
    with _reading_process(folder) as child:
        assert child.ask("read", ANSWER_S) == set(folder.sizes)
        half = path.stat().st_size // 2
        spared = (
            {key for key in inside if folder.place_of(key)[1] + SIZE <= half} if left == "half" else set()
        )
        os.truncate(path, half if left == "half" else 0)
        found = child.ask("read", ANSWER_S)
        assert set(folder.sizes) - inside <= found <= set(folder.sizes) - inside | spared
        with folder.open() as store:
            assert count(store, "misses_io") > 0
            assert not store.status()["tiers"][0]["failed"], "one damaged file is no failing disk"
            folder.heal(store)
        assert child.ask("read", ANSWER_S) == set(folder.sizes)


@pytest.mark.parametrize("length", [4 * KIB, 64 * KIB, MIB])
def test_a_hole_punched_while_it_is_read(make_folder: MakeFolder, length: int) -> None:
    folder = make_folder("SSD")
    folder.made(120)
    path, inside = _victim(folder)
    with _reading_process(folder) as child:
        assert child.ask("read", ANSWER_S) == set(folder.sizes)
        punch(path, 64 * KIB, length)
        found = child.ask("read", ANSWER_S)
        assert set(folder.sizes) - inside <= found < set(folder.sizes)
        with folder.open() as store:
            assert count(store, "misses_checksum") > 0
            folder.heal(store)
        assert child.ask("read", ANSWER_S) == set(folder.sizes)


@pytest.mark.parametrize("what", REPLACEMENTS)
@pytest.mark.parametrize("medium", MEDIA)
def test_a_segment_replaced_while_open(make_folder: MakeFolder, medium: Medium, what: str) -> None:
    folder = make_folder(medium)
    folder.made(120)
    path, inside = _victim(folder)
    with _reading_process(folder, checksum="read") as before, _outside_untouched_later(folder, path, what):
        assert before.ask("read", ANSWER_S) == set(folder.sizes)
        if what == "random bytes":
            path.write_bytes(os.urandom(path.stat().st_size))
        else:
            REPLACEMENTS[what](path)
        # Who had it open still sees the old file, or else nothing; who opens it now sees nothing of it.
        assert set(folder.sizes) - inside <= before.ask("read", ANSWER_S)
        with _reading_process(folder, checksum="read") as after:
            assert after.ask("read", ANSWER_S) == set(folder.sizes) - inside
            with folder.open() as store:
                assert not store.status()["tiers"][0]["failed"]
                folder.heal(store)
            assert after.ask("read", ANSWER_S) == set(folder.sizes)
        assert before.ask("read", ANSWER_S) == set(folder.sizes)
        _goes_on(folder)
    if what.startswith("a directory with"):
        shutil.rmtree(path)


@contextmanager
def _outside_untouched_later(folder: CacheFolder, path: Path, what: str) -> Iterator[None]:
    """As _outside_untouched, for a link's target that is made inside."""
    outside = path.parent.parent / f"outside-{path.name}"
    content = path.read_bytes()
    yield
    if what == "a symbolic link":
        assert outside.read_bytes() == content
    assert not (path.parent.parent / "made by following").exists()


def test_a_mem_segment_truncated_before_it_was_mapped(make_folder: MakeFolder) -> None:
    folder = make_folder("MEM")
    folder.made(120)
    path, inside = _victim(folder)

    def body(link: Connection) -> None:
        with folder.open() as store:
            link.send("open")
            link.recv()
            assert folder.warm(store) == set(folder.sizes) - inside
            folder.heal(store)

    with Child(body) as child:
        child.receive(ANSWER_S)
        os.truncate(path, 4 * KIB)
        child.send("read")
        child.result(ANSWER_S)
