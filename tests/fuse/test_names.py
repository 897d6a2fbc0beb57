"""Hostile names of keys, as a mount shows them: as they are, or not at all, and never as another."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.cache import Cache
from tests._s3 import BUCKET, FakeS3, give_keys
from tests.fuse._mount import errno_of
from tests.fuse.conftest import Mounting

SHOWN = [
    "plain",
    "new\nline",
    "back\\slash",
    "\x1b[31mred\x1b[0m",
    "tab\tand space ",
    "%2e%2e",
    "..%2f",
    "...",
    "-rf",
    "#?&=+;",
    "ünï/çødé",
    "\U0001f680",
    "e\u0301",
    "\u00e9",
    "x" * 255,
    "deep/" * 20 + "end",
]
NOT_SHOWN = ["a//b", "/lead", "..", "../up", ".", "up/../../plain", "nul\0", "trail//", ""]


def content(key: str) -> bytes:
    return key.encode() * 10


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    give_keys(monkeypatch)
    with FakeS3() as storage:
        storage.objects |= {key: content(key) for key in SHOWN}
        yield storage


@pytest.fixture
def attached(cache: Cache, storage: FakeS3) -> Cache:
    cache.attach("d", f"s3://{BUCKET}", endpoint_url=storage.url, max_age=None)
    return cache


def tree_of(folder: Path) -> dict[str, bytes]:
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            found[os.path.relpath(path, folder)] = Path(path).read_bytes()
    return found


def test_names_are_shown_as_they_are(attached: Cache, mounted: Mounting) -> None:
    wanted = {key: content(key) for key in SHOWN}
    # By name first, which nothing was listed for; then as a tree.
    path = mounted().path
    assert {key: (path / key).read_bytes() for key in SHOWN} == wanted
    assert tree_of(path) == wanted
    assert tree_of(mounted().path) == wanted
    found = subprocess.run(["find", path, "-type", "f", "-print0"], capture_output=True, check=True).stdout
    names = {os.fsdecode(each) for each in found.split(b"\0") if each}
    assert names == {str(path / key) for key in SHOWN}


def test_what_no_path_can_name_is_left_out(attached: Cache, storage: FakeS3, mounted: Mounting) -> None:
    storage.objects |= {key: b"odd" for key in NOT_SHOWN if key and "\0" not in key}
    path = mounted().path
    found = tree_of(path)
    assert {key: found[key] for key in SHOWN} == {key: content(key) for key in SHOWN}
    assert b"odd" not in found.values()
    # What the kernel makes of it is the path without these parts.
    assert (path / "up/../plain").exists() is (path / "up").exists()
    assert errno_of((path / "a").stat) in (None, errno.ENOENT)
    assert (path / "../").stat().st_ino == path.parent.stat().st_ino


def test_a_marker_of_a_directory(attached: Cache, storage: FakeS3, mounted: Mounting) -> None:
    storage.objects |= {"folder/": b"", "filled/": b"bytes", "filled/one": b"1"}
    path = mounted().path
    assert (path / "folder").is_dir()
    assert os.listdir(path / "folder") == []
    assert os.listdir(path / "filled") == ["one"]
    assert (path / "filled/one").read_bytes() == b"1"


def test_an_object_and_a_directory_of_one_name(attached: Cache, storage: FakeS3, mounted: Mounting) -> None:
    storage.objects |= {"both": b"object", "both/one": b"1"}
    path = mounted().path
    # Nothing was listed: what the storage has by that very name is found.
    assert (path / "both").read_bytes() == b"object"
    assert os.listdir(path).count("both") == 1
    assert (path / "both").is_dir()
    assert (path / "both/one").read_bytes() == b"1"
    assert os.listdir(path / "both") == ["one"]
    assert os.listdir(path).count("both") == 1
    assert attached.read("d/both") == b"object"
    other = mounted().path
    assert (other / "both/one").read_bytes() == b"1"


def test_a_key_named_as_the_control_folder(attached: Cache, storage: FakeS3, mounted: Mounting) -> None:
    storage.objects |= {".forebay": b"object", ".forebay2": b"2", "sub/.forebay": b"3"}
    for mount in (mounted(), mounted("--show-control")):
        assert mount.stats()["dataset"] == "d"
        assert (mount.path / ".forebay").is_dir()
        assert (mount.path / ".forebay2").read_bytes() == b"2"
        assert (mount.path / "sub/.forebay").read_bytes() == b"3"
    assert os.listdir(mount.path).count(".forebay") == 1


def test_a_name_longer_than_file_systems_have(attached: Cache, storage: FakeS3, mounted: Mounting) -> None:
    """Older kernels' FUSE takes 1,024 bytes, as many as S3 takes as a key."""
    for length in (256, 1_000):
        storage.objects["n" * length] = b"long"
    path = mounted().path
    for length in (256, 1_000):
        assert (path / ("n" * length)).read_bytes() == b"long"
    assert sum(len(name) >= 256 for name in os.listdir(path)) == 2
    assert errno_of((path / ("n" * 1_025)).stat) in (errno.ENAMETOOLONG, errno.ENOENT)


def test_names_that_are_no_text(cache: Cache, tmp_path: Path, mounted: Mounting) -> None:
    """Bytes that are no UTF-8 cannot be a path of the cache: they are not found, and in no one's way."""
    folder = os.fsencode(tmp_path / "source")
    os.mkdir(folder)
    for name in (b"good", b"bad\xff\xfe", b"half\xc3"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(name)
    cache.attach("d", (tmp_path / "source").as_uri(), max_age=None)
    path = os.fsencode(mounted().path)
    assert errno_of(lambda: os.stat(os.path.join(path, b"none\xff"))) == errno.ENOENT
    for name in os.listdir(path):
        with open(os.path.join(path, name), "rb") as file:
            assert file.read() == name
    with open(os.path.join(path, b"good"), "rb") as file:
        assert file.read() == b"good"
