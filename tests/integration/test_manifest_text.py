"""Manifests as text, and orders of access: carried off, brought back, refused line by line, loaded."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from forebay.cache import Cache
from forebay.errors import ConfigError, ManifestNotFound
from forebay.testing.faulty import FaultyStorage
from tests.integration._sites import OpenCache
from tests.integration._trees import TREE, everything


def exported(cache: Cache, version: str) -> bytes:
    stream = io.BytesIO()
    cache.export_manifest("d", version, stream)
    return stream.getvalue()


def test_carried_off_and_brought_back(cache: Cache, storage: FaultyStorage, tmp_path: Path) -> None:
    storage.put('odd "name"\n', b"7")
    storage.put("\udcff", b"8")
    cache.create_manifest("d", "v1")
    assert cache.export_manifest("d", "v1", tmp_path / "file") == 7
    assert (tmp_path / "file").read_bytes() == exported(cache, "v1")
    storage.calls.clear()
    status = cache.import_manifest("d", "v2", tmp_path / "file", use=True)
    assert (status.objects, status.is_in_use, status.source) == (7, True, str(tmp_path / "file"))
    assert exported(cache, "v1").splitlines()[1:] == exported(cache, "v2").splitlines()[1:]
    assert storage.calls == {}
    assert everything(cache, "d") == TREE | {'odd "name"\n': b"7", "\udcff": b"8"}


LINE = {"path": "a", "size": 1, "version": "v"}
HEAD = {"manifest": "v1", "dataset": "d", "objects": 1, "bytes": 1, "ordered": False}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([LINE, {**LINE, "path": "b"}, LINE], "line 1: its path comes again in a later line"),
        ([HEAD, LINE, {**LINE, "size": 2}], "2 objects follow, the first line says 1"),
        ([{**HEAD, "objects": 2}, LINE, {**LINE, "size": 2}], "line 2: its path comes again"),
        ([HEAD], "0 objects follow, the first line says 1"),
        ([LINE, HEAD], "line 2: 'manifest' is unknown"),
        ([{"path": "a", "size": 1}], "line 1: version: None"),
        ([LINE, {**LINE, "path": "/b"}], "line 2: path: '/b' is absolute"),
        ([{**LINE, "path": "b/../c"}], r"path: 'b/\.\./c' contains the part '\.\.'"),
        ([{**LINE, "path": 5}], "line 1: path: 5 is no text"),
        ([{**LINE, "size": -1}], "size: -1"),
        ([{**LINE, "size": True}], "size: True"),
        ([{**LINE, "size": 1 << 63}], "size: 9223372036854775808"),
        ([{**LINE, "size": "1"}], "size: '1'"),
        ([{**LINE, "version": ""}], "version: ''"),
        ([{**LINE, "mtime_ns": 1.5}], "mtime_ns: 1.5"),
        ([{**LINE, "sice": 1}], r"'sice' is unknown \(did you mean 'size'\?\)"),
        ([{**LINE, "version": "v" * 100_000}], "line 1: is longer than 65536 bytes"),
        ([LINE, [1]], "line 2: is no JSON object"),
    ],
)
def test_a_bad_line_is_named(cache: Cache, tmp_path: Path, lines: list[object], words: str) -> None:
    path = tmp_path / "file"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ConfigError, match=words) as caught:
        cache.import_manifest("d", "v1", path)
    assert str(caught.value).startswith(f"{path}: ")
    assert cache.manifests("d") == []
    assert list((tmp_path / "cache/v1/meta/manifests").rglob("*.lmdb")) == []


@pytest.mark.parametrize("text", ["{", "", "\n", '{"path": "a"', "\x00\xff"])
def test_what_is_no_text_of_a_manifest_is_refused(cache: Cache, text: str) -> None:
    stream = io.BytesIO(json.dumps(LINE).encode() + b"\n" + text.encode("latin-1"))
    if not text:
        assert cache.import_manifest("d", "v1", stream).objects == 1
        return
    with pytest.raises(ConfigError, match="a stream: line 2: is no JSON"):
        cache.import_manifest("d", "v1", stream)


def test_loading_in_an_order(open_cache: OpenCache, storage: FaultyStorage) -> None:
    cache = open_cache(schemes=storage.schemes(), fetch_threads=1)
    cache.attach("d", "faulty://x", max_age=None)
    names = ["z/e", "sub/b", "a", "sub/deep/d", "sub/c"]
    rows = [
        {"path": name, "size": len(TREE[name]), "version": f"v{number}"}
        for number, name in sorted((list(TREE).index(name) + 1, name) for name in names)
    ]
    rows.sort(key=lambda row: names.index(str(row["path"])))
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    assert cache.import_manifest("d", "v1", io.BytesIO(text), ordered=True).is_ordered
    read: list[str] = []
    original = storage.read_range

    def note(path: str, *arguments: object, **options: object) -> object:
        read.append(path)
        return original(path, *arguments, **options)  # type: ignore[arg-type]

    storage.read_range = note  # type: ignore[method-assign, assignment]
    result = cache.load("d", order="v1").wait()
    assert (result.ok, read) == (True, names)
    cache.free("d")
    read.clear()
    assert cache.load("d@v1/sub", order="v1", glob="**/[bd]").wait().progress.files_total == 2
    assert read == ["sub/b", "sub/deep/d"]
    # The order goes along with the text.
    head, *lines = exported(cache, "v1").splitlines()
    assert json.loads(head)["ordered"]
    assert [json.loads(line)["path"] for line in lines] == names
    cache.import_manifest("d", "v2", io.BytesIO(exported(cache, "v1")))
    assert exported(cache, "v2").splitlines()[1:] == lines
    cache.create_manifest("d", "plain")
    with pytest.raises(ConfigError, match="'plain' of dataset 'd' has no order"):
        cache.load("d", order="plain")
    with pytest.raises(ManifestNotFound):
        cache.load("d", order="none")
    with pytest.raises(ValueError, match="exclude each other"):
        cache.load("d", order="v1", files=["a"])
