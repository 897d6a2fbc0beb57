"""What file:// does that other storages cannot: links, special files, and a walk of a whole tree."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from forebay.errors import NotFound, UnderStorageError
from forebay.ufs import ObjectInfo, UnderStorage, file, open_storage


@pytest.fixture(params=["local", "network"])
def storage(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> UnderStorage:
    """A storage at root/, taken for one on a local file system or on a network's."""
    (tmp_path / "root").mkdir()
    local = frozenset({"this"} if request.param == "local" else ())
    monkeypatch.setattr(file, "_file_system_type", lambda device: "this")
    monkeypatch.setattr(file, "_LOCAL_FILE_SYSTEMS", local)
    return open_storage((tmp_path / "root").as_uri(), {})


def walked(storage: UnderStorage, path: str = "") -> dict[str, ObjectInfo]:
    infos = [info for page in storage.walk(path) for info in page]
    by_path = {info.path: info for info in infos}
    assert len(by_path) == len(infos)
    return by_path


def test_a_walk_of_many_comes_in_pages(storage: UnderStorage, tmp_path: Path) -> None:
    expected = set()
    for folder in range(20):
        (tmp_path / f"root/{folder}").mkdir()
        for number in range(110 * (folder % 5)):
            (tmp_path / f"root/{folder}/{number}").touch()
            expected.add(f"{folder}/{number}")
    (tmp_path / "root/flat").mkdir()
    for number in range(2_500):
        (tmp_path / f"root/flat/{number}").touch()
        expected.add(f"flat/{number}")
    pages = list(storage.walk(""))
    assert max(len(page) for page in pages) == 1_000
    assert {info.path for page in pages for info in page} == expected


def test_links_are_followed(storage: UnderStorage, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a").write_bytes(b"12")
    (tmp_path / "root/folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/file").symlink_to("folder/a")
    assert {path: info.size for path, info in walked(storage).items()} == {
        "folder/a": 2,
        "again/a": 2,
        "file": 2,
    }
    assert walked(storage)["file"] == storage.stat("file")


def test_a_walk_does_not_go_round_in_circles(storage: UnderStorage, tmp_path: Path) -> None:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/a/file").touch()
    (tmp_path / "root/a/b/up").symlink_to("..")
    (tmp_path / "root/a/b/root").symlink_to(tmp_path / "root")
    (tmp_path / "root/a/self").symlink_to(".")
    assert walked(storage).keys() == {"a/file"}


@pytest.mark.parametrize("target", ["nowhere", "link", "link/below"])
def test_a_link_that_leads_nowhere_is_not_shown(storage: UnderStorage, tmp_path: Path, target: str) -> None:
    (tmp_path / "root/link").symlink_to(target)
    (tmp_path / "root/file").touch()
    assert walked(storage).keys() == {"file"}
    assert [info.path for page in storage.list("") for info in page] == ["file"]


def test_what_is_no_file_is_not_walked_into(storage: UnderStorage, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root/pipe")
    assert walked(storage) == {}


def test_walking_what_is_not_there_or_no_directory(storage: UnderStorage, tmp_path: Path) -> None:
    (tmp_path / "root/file").touch()
    for path in ("nothing", "file", "file/below"):
        with pytest.raises(NotFound, match=path):
            list(storage.walk(path))
    (tmp_path / "root").rename(tmp_path / "moved")
    with pytest.raises(UnderStorageError, match="is not there"):
        list(storage.walk("d"))


def test_a_directory_that_vanishes_during_the_walk(storage: UnderStorage, tmp_path: Path) -> None:
    (tmp_path / "root/d/e").mkdir(parents=True)
    pages = storage.walk("")
    real_scan = file.FileStorage._scan

    def scan(self: file.FileStorage, path: str) -> object:
        if path == "d/e":
            (tmp_path / "root/d/e").rmdir()
        return real_scan(self, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file.FileStorage, "_scan", scan)
        assert list(pages) == []
    assert stat.S_ISDIR((tmp_path / "root/d").stat().st_mode)


def test_the_file_system_of_a_mount_is_told() -> None:
    assert file._file_system_type(os.stat("/proc").st_dev) == "proc"
    assert file._file_system_type(os.makedev(4_095, 0)) == ""


def test_without_proc_every_file_system_may_be_a_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "_MOUNTS", "/nowhere")
    assert file._file_system_type(os.stat("/").st_dev) == ""
