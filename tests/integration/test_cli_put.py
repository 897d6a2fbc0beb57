"""put, rm, mv and mkdir on the command line."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from tests.integration._cli import Cli


@pytest.fixture
def writable(cli: Cli) -> Cli:
    """The command line, with a folder attached as ``d`` that may be written."""
    assert cli("attach", "d", cli.uri, "--writable", "--immutable").code == 0
    return cli


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A local folder with some files."""
    folder = tmp_path / "local"
    (folder / "sub/deep").mkdir(parents=True)
    for name in ("one", "sub/two", "sub/deep/three"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_a_file_to_a_path(writable: Cli, local: Path) -> None:
    done = writable("put", str(local / "one"), "d/new/name")
    assert (done.code, done.out) == (0, b"")
    assert "put 1 files, 3 B" in done.err
    assert writable("cat", "d/new/name").out == b"one"
    assert (writable.data / "new/name").read_bytes() == b"one"
    (local / "one").write_bytes(b"again")
    assert writable("put", str(local / "one"), "d/new/name").code == 0
    assert writable("cat", "d/new/name").out == b"again"


def test_files_into_a_directory(writable: Cli, local: Path) -> None:
    done = writable("put", str(local / "one"), str(local / "sub/two"), "d/sub", "--json")
    put = json.loads(done.text)
    assert (done.code, put["files"], put["bytes"]) == (0, 2, 10)
    assert [(each["path"], each["bytes"]) for each in put["put"]] == [("d/sub/one", 3), ("d/sub/two", 7)]
    assert writable("put", str(local / "one"), "d/other/").code == 0
    assert writable("put", str(local / "one"), "d").code == 0
    assert writable("ls", "d").lines == ["d/a.bin", "d/one", "d/other/", "d/sub/"]
    refused = writable("put", str(local / "one"), str(local / "sub/two"), "d/absent")
    assert (refused.code, "is not a directory" in refused.err) == (2, True)


def test_a_folder_with_everything_below(writable: Cli, local: Path) -> None:
    refused = writable("put", str(local), "d/copy")
    assert (refused.code, "Is a directory" in refused.err) == (1, True)
    assert writable("put", "-r", str(local), "d/copy").code == 0
    assert writable("cat", "d/copy/sub/deep/three").out == b"sub/deep/three"
    assert writable("put", "-r", str(local), "d/copy").code == 0
    assert writable("ls", "d/copy").lines == ["d/copy/local/", "d/copy/one", "d/copy/sub/"]


def test_standard_input(writable: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    data = os.urandom(3_000_000)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert writable("put", "-", "d/in").code == 0
    assert writable("cat", "d/in").out == data
    refused = writable("put", "-", "d/sub")
    assert (refused.code, "has no name" in refused.err) == (2, True)


def test_only_what_is_not_there(writable: Cli, local: Path) -> None:
    (writable.data / "sub/two").write_bytes(b"of another")
    done = writable("put", "-x", str(local / "one"), str(local / "sub/two"), "d/sub")
    assert (done.code, "sub/two: there is such an object already" in done.err) == (1, True)
    assert "put 1 files" in done.err
    assert (writable.data / "sub/two").read_bytes() == b"of another"


def test_one_bad_file_does_not_stop_the_others(writable: Cli, local: Path) -> None:
    os.mkfifo(local / "pipe")
    done = writable("put", str(local / "absent"), str(local / "pipe"), str(local / "one"), "d/sub")
    assert done.code == 1
    assert "absent: No such file" in done.err
    assert "pipe: not a regular file" in done.err
    assert writable("cat", "d/sub/one").out == b"one"
    twice = writable("put", str(local / "one"), str(local / "sub/../one"), "d/sub")
    assert (twice.code, "would lie where" in twice.err) == (1, True)


def test_removing(writable: Cli) -> None:
    done = writable("rm", "d/a.bin", "d/absent", "d/sub")
    assert (done.code, done.lines) == (1, ["removed d/a.bin"])
    assert "not empty" in done.err
    assert not (writable.data / "a.bin").exists()
    done = writable("rm", "-r", "d/sub", "--json")
    assert (done.code, json.loads(done.text)) == (0, [{"path": "d/sub"}])
    assert list(writable.data.iterdir()) == []


def test_renaming(writable: Cli) -> None:
    done = writable("mv", "d/a.bin", "d/b.bin")
    assert (done.code, done.lines) == (0, ["renamed d/a.bin to d/b.bin"])
    done = writable("mv", "d/sub", "d/place/new", "--json")
    assert (done.code, json.loads(done.text)) == (0, {"path": "d/sub", "target": "d/place/new"})
    assert writable("ls", "d/place/new").lines == ["d/place/new/b.bin", "d/place/new/c"]
    assert writable("mv", "d/absent", "d/x").code == 1


def test_making_directories(writable: Cli) -> None:
    done = writable("mkdir", "d/new/deep", "d/a.bin")
    assert (done.code, done.lines) == (1, ["made d/new/deep"])
    assert (writable.data / "new/deep").is_dir()
    assert json.loads(writable("mkdir", "d/new/deep", "--json").text) == [{"path": "d/new/deep"}]


def test_a_dataset_that_is_read_only_says_so(attached: Cli, local: Path) -> None:
    for arguments in (
        ("put", str(local / "one"), "d/x"),
        ("rm", "d/a.bin"),
        ("mv", "d/a.bin", "d/b"),
        ("mkdir", "d/new"),
    ):
        done = attached(*arguments)
        assert (done.code, done.err.count("\n")) == (1, 1 if arguments[0] != "put" else 2)
        assert "the dataset 'd' is attached to be read only; attach it with writable=True" in done.err
        assert "credentials" not in done.err
    assert (attached.data / "a.bin").exists()


def test_attaching_to_be_written(cli: Cli) -> None:
    done = cli("attach", "d", cli.uri, "--writable", "--write-mode", "cache_through", "--json")
    record = json.loads(done.text)
    assert (record["writable"], record["write_mode"]) == (True, "cache_through")
    refused = cli("attach", "d", cli.uri, "--writable", "--write-mode", "sync")
    assert (refused.code, "write_mode: 'sync' is unknown" in refused.err) == (2, True)
