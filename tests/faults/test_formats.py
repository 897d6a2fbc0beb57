"""Other formats beside ours, files that are not ours, and file systems that cannot hold a store."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from forebay.errors import ConfigError
from forebay.store import BlockStore, Tier
from forebay.store.formats import remove_older_formats
from tests.faults._child import Child
from tests.faults._damage import CacheFolder, rebuilt
from tests.faults._damage_fuse import fuse_mount
from tests.faults._damage_layout import edited_super
from tests.faults.conftest import MakeFolder

SIZE = 10_000


def _other_format(folder: Path, name: str, with_lock: bool = True) -> Path:
    """What a version of another format may have left."""
    home = folder / name
    (home / "inner").mkdir(parents=True)
    (home / "inner" / "seg-000000").write_bytes(b"of another format")
    if with_lock:
        (home / "open.lock").touch()
    return home


def _everything(folder: CacheFolder, name: str) -> list[Path]:
    """Such a folder in the cache directory and in its tier."""
    return [
        _other_format(folder.path, name),
        _other_format(Path(folder.tiers[0].path), name, with_lock=False),
    ]


def test_an_older_format_is_removed_where_nobody_has_it_open(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    folder.made(10, SIZE)
    old = _everything(folder, "v0")
    with folder.open() as store:
        assert not any(path.exists() for path in old)
        assert folder.warm(store) == set(folder.sizes)


def test_an_older_format_in_use_is_left_alone(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    folder.made(10, SIZE)
    old = _everything(folder, "v0")

    def body(link: Connection) -> None:
        with (folder.path / "v0" / "open.lock").open("r+b") as lock:
            request = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 1, 0)
            fcntl.fcntl(lock, fcntl.F_OFD_SETLK, request)
            link.send("held")
            link.recv()

    with Child(body) as user:
        user.receive()
        folder.open().close()
        assert all((path / "inner" / "seg-000000").read_bytes() == b"of another format" for path in old)
    folder.open().close()
    assert not any(path.exists() for path in old)


@pytest.mark.parametrize("name", ["v2", "v10", "v01", "v", "vault", "v0.bak"])
def test_newer_formats_and_other_folders_are_left_alone(make_folder: MakeFolder, name: str) -> None:
    folder = make_folder("SSD")
    folder.made(10, SIZE)
    others = _everything(folder, name)
    folder.open().close()
    assert all((path / "inner" / "seg-000000").read_bytes() == b"of another format" for path in others)


def _without_lock(home: Path) -> None:
    (home / "open.lock").unlink()


def _lock_is_a_fifo(home: Path) -> None:
    _without_lock(home)
    os.mkfifo(home / "open.lock")


def _lock_is_a_link(home: Path) -> None:
    _without_lock(home)
    (home / "open.lock").symlink_to(home / "inner" / "seg-000000")


def _is_a_link(home: Path) -> None:
    home.rename(home.with_name("real"))
    home.symlink_to(home.with_name("real"))


@pytest.mark.parametrize("act", [_without_lock, _lock_is_a_fifo, _lock_is_a_link, _is_a_link])
def test_what_cannot_be_locked_is_left_alone(make_folder: MakeFolder, act: Callable[[Path], None]) -> None:
    folder = make_folder("SSD")
    folder.made(10, SIZE)
    home = _other_format(folder.path, "v0")
    act(home)
    folder.open().close()
    assert (home / "inner" / "seg-000000").read_bytes() == b"of another format"


def test_links_inside_are_removed_and_not_followed(make_folder: MakeFolder, tmp_path: Path) -> None:
    folder = make_folder("SSD")
    folder.made(10, SIZE)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"kept")
    home = _other_format(folder.path, "v0")
    (home / "link").symlink_to(outside)
    folder.open().close()
    assert not home.exists()
    assert (outside / "file").read_bytes() == b"kept"


def test_who_may_only_read_removes_nothing(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    with folder.open() as store:
        folder.fill(store, 10, SIZE)
        home = _other_format(folder.path, "v0")
        with BlockStore(folder.path, read_only=True) as reader:
            assert folder.warm(reader) == set(folder.sizes)
        assert home.exists()


def test_a_cache_directory_that_is_gone_has_nothing_to_remove(tmp_path: Path) -> None:
    assert remove_older_formats(str(tmp_path / "nowhere"), []) == []


def test_an_index_of_another_format_in_our_folder_is_rebuilt(make_folder: MakeFolder) -> None:
    folder = make_folder("SSD")
    folder.made(60, SIZE)
    with edited_super(folder.index) as super_block:
        super_block.format = 2
    with folder.open() as store:
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)


@pytest.mark.parametrize("features", [0, 3])
def test_an_index_with_other_features_is_rebuilt_from_the_tables(
    make_folder: MakeFolder, features: int
) -> None:
    """As before counters were kept by dataset, or as of a version to come."""
    folder = make_folder("SSD")
    folder.made(60, SIZE)
    with edited_super(folder.index) as super_block:
        assert super_block.features == 1
        super_block.features = features
    with folder.open() as store:
        rebuilt(store)
        assert folder.warm(store) == set(folder.sizes)


@pytest.mark.parametrize("where", ["cache directory", "tier"])
def test_a_file_system_that_cannot_be_shared_safely_is_refused(tmp_path: Path, where: str) -> None:
    cache, tier = tmp_path / "cache", tmp_path / "tier"
    refused = cache if where == "cache directory" else tier
    with fuse_mount(refused), pytest.raises(ConfigError, match="FUSE") as caught:
        BlockStore(cache, [Tier(str(tier), "16MiB")])
    assert str(refused) in str(caught.value)
    with BlockStore(cache, [Tier(str(tier), "16MiB")]) as store:
        assert store.put(b"key", b"data")


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(OSError, match="file"):
        BlockStore(tmp_path / "file", [Tier(str(tmp_path / "tier"), "16MiB")])
    assert (tmp_path / "file").read_bytes() == b"kept"


@pytest.mark.parametrize("name", ["open.lock", "rows.lock", "index", "identity"])
@pytest.mark.parametrize("kind", ["directory", "FIFO", "symbolic link"])
def test_a_file_of_the_cache_that_is_none_is_refused_in_time(
    make_folder: MakeFolder, name: str, kind: str
) -> None:
    folder = make_folder("SSD")
    folder.made(10, SIZE)
    path = folder.home / name
    path.rename(path.with_name(f"{name}.aside"))
    if kind == "directory":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.symlink_to(path.with_name(f"{name}.aside"))
    with pytest.raises((OSError, ConfigError), match=str(folder.path)):
        folder.open()
    path.rmdir() if kind == "directory" else path.unlink()
    path.with_name(f"{name}.aside").rename(path)
    with folder.open() as store:
        assert folder.warm(store) == set(folder.sizes)
