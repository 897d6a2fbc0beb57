"""A damaged catalog under a cache: an error that names file, backup and page; and restoring it works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import forebay
from forebay.cli import main
from forebay.config import Tier
from forebay.errors import ConfigError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_bytes(b"some bytes")
    return folder


def read(place: Path) -> bytes:
    with forebay.open(place) as cache, cache.read("d/a") as view:
        return bytes(view)


def test_a_catalog_is_restored_from_its_backup(
    tmp_path: Path, memory_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "cache"
    with forebay.open(place, [Tier(str(memory_path), "16MiB", medium="MEM")]) as cache:
        cache.attach("d", data.as_uri())
        assert bytes(cache.read("d/a")) == b"some bytes"
    (catalog,) = place.rglob("catalog.lmdb")
    catalog.write_bytes(b"garbage" * 5_000)
    with pytest.raises(ConfigError, match=r"catalog\.lmdb\.backup"):
        read(place)
    assert main(["check", "--cache-dir", str(place)]) != 0
    said = capsys.readouterr().err
    assert "catalog.lmdb.backup" in said
    assert "operations.md" in said
    shutil.copy(f"{catalog}.backup", catalog)
    for entries in catalog.parent.glob("entries-*.lmdb"):
        entries.unlink()
    with forebay.open(place) as cache:
        assert [dataset.name for dataset in cache.datasets()] == ["d"]
        assert bytes(cache.read("d/a")) == b"some bytes"
