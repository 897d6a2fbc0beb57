"""What a mount needs of the machine, and how its being missing is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.errors import ConfigError
from forebay.fuse import MountOptions, mount, serve
from forebay.fuse.mounts import mount_at


def refused(cache: Cache, place: Path, options: MountOptions | None = None) -> str:
    """Return what is said of a mount that cannot be made."""
    with pytest.raises(ConfigError) as raised:
        serve(cache, "d", str(place), options or MountOptions(), lambda mount: None)
    return str(raised.value)


def test_the_package_is_imported_without_pyfuse3() -> None:
    script = "import sys, forebay.fuse; sys.exit('pyfuse3' in sys.modules or 'trio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_without_pyfuse3(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "find_spec", lambda name: None)
    assert "pip install 'forebay[fuse]'" in refused(cache, tmp_path)


def test_without_the_device(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "_DEVICE", str(tmp_path / "fuse"))
    assert "modprobe fuse" in refused(cache, tmp_path)


def test_without_being_root(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(mount, "_CONFIGURATION", str(tmp_path / "fuse.conf"))
    assert "user_allow_other" in refused(cache, tmp_path, MountOptions(allow_other=True))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "install the package fuse3" in refused(cache, tmp_path)


def test_what_is_mounted_is_found_by_the_kernels_word() -> None:
    found = mount_at("/proc")
    assert found is not None
    assert (found.path, found.file_system) == ("/proc", "proc")
    assert mount_at("/proc/self") is None
