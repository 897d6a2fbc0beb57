"""The kernel's list of mounts. Takes root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay.errors import ConfigError
from forebay.fuse.mounts import mount_at
from forebay.fuse.read_ahead import set_read_ahead
from forebay.fuse.unmount import unmount


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs at a path with all that the kernel escapes in its list."""
    path = tmp_path / "a b\tc\\d\ne"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "the source", path], check=True)
    yield path
    while mount_at(str(path)) is not None:
        subprocess.run(["umount", "--lazy", path], check=True)


def test_a_mount_is_found_by_its_path(place: Path) -> None:
    found = mount_at(str(place))
    assert found is not None
    assert (found.path, found.file_system, found.source) == (str(place), "tmpfs", "the source")
    device = place.stat().st_dev
    assert found.device == f"{device >> 8 & 0xFFF}:{device & 0xFF}"


def test_a_mount_is_found_through_a_link_above_it(place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    found = mount_at(f"{tmp_path}/link/{place.name}")
    assert found is not None
    assert found.path == str(place)


def test_of_two_mounts_the_upper_one_counts(place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "upper", place], check=True)
    for source in ("upper", "the source"):
        found = mount_at(str(place))
        assert found is not None
        assert found.source == source
        subprocess.run(["umount", place], check=True)
    assert mount_at(str(place)) is None


def test_what_is_not_ours_is_left_alone(place: Path) -> None:
    with pytest.raises(ConfigError, match="has tmpfs mounted"):
        unmount(str(place))
    assert mount_at(str(place)) is not None


def test_where_nothing_is_mounted_there_is_no_read_ahead(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing is mounted"):
        set_read_ahead(str(tmp_path), 1 << 20)
