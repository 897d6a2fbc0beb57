"""The command line: cp, du, free and sync."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path

import pytest

from forebay.cache import Cache, CachedFile
from forebay.config import KIB, MIB
from forebay.testing.faults import Fault
from forebay.testing.proxy_process import ProxyProcess
from forebay.testing.s3 import S3Server
from tests.integration._cli import Cli


def names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A folder to copy to."""
    path = tmp_path / "target"
    path.mkdir()
    return path


def test_cp_of_one_object(attached: Cli, target: Path) -> None:
    into_folder = attached("cp", "d/a.bin", str(target))
    assert (into_folder.code, into_folder.out) == (0, b"")
    assert into_folder.err == "copied 1 files, 10 B\n"
    assert attached("cp", "d/sub/b.bin", str(target / "renamed")).code == 0
    assert names_below(target) == ["a.bin", "renamed"]
    assert (target / "a.bin").read_bytes() == b"bytes of a"
    assert (target / "renamed").read_bytes() == (attached.data / "sub/b.bin").read_bytes()
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((target / "a.bin").stat().st_mode) == 0o666 & ~umask


def test_cp_replaces_what_was_there(attached: Cli, target: Path) -> None:
    (target / "a.bin").write_bytes(b"older and longer than that")
    before = (target / "a.bin").stat().st_ino
    assert attached("cp", "d/a.bin", str(target)).code == 0
    assert (target / "a.bin").read_bytes() == b"bytes of a"
    assert (target / "a.bin").stat().st_ino != before


def test_cp_of_all_below(attached: Cli, target: Path) -> None:
    attached.write("sub/deep/er/x", b"1")
    outcome = attached("cp", "-r", "--json", "d/sub", "d/a.bin", str(target))
    assert outcome.code == 0
    done = json.loads(outcome.out)
    assert (done["files"], done["bytes"]) == (4, 100 * KIB + 11)
    assert {each["path"]: each["bytes"] for each in done["copied"]}["d/sub/deep/er/x"] == 1
    assert names_below(target) == [
        "a.bin",
        "sub",
        "sub/b.bin",
        "sub/c",
        "sub/deep",
        "sub/deep/er",
        "sub/deep/er/x",
    ]
    assert (target / "sub/c").read_bytes() == b""
    assert attached("cp", "-r", "d", str(target / "whole")).code == 0
    assert (target / "whole/sub/deep/er/x").read_bytes() == b"1"


def test_cp_of_large_and_many(attached: Cli, target: Path) -> None:
    data = os.urandom(21 * MIB + 7)
    attached.write("big", data)
    for number in range(200):
        attached.write(f"many/{number}", b"%d" % number)
    assert attached("cp", "-r", "d", str(target)).code == 0
    assert (target / "d/big").read_bytes() == data
    assert all((target / f"d/many/{n}").read_bytes() == b"%d" % n for n in range(200))


def test_cp_says_what_failed_and_copies_the_rest(attached: Cli, target: Path) -> None:
    (target / "a.bin").mkdir()
    (target / "a.bin/full").touch()
    outcome = attached("cp", "d/a.bin", "d/none", "d/sub", "d/sub/c", str(target))
    assert outcome.code == 1
    absent, directory, blocked = outcome.err.splitlines()[:3]
    assert "none: No such file or directory" in absent
    assert directory == (
        "forebay: d/sub: is a directory; name an object in it, or use -r where the command has it"
    )
    assert str(target / "a.bin") in blocked
    assert ".partial" not in outcome.err
    assert names_below(target) == ["a.bin", "a.bin/full", "c"]


def test_cp_of_two_to_one_name(attached: Cli, target: Path) -> None:
    attached.write("other/c", b"other")
    outcome = attached("cp", "d/sub/c", "d/other/c", str(target))
    assert outcome.code == 1
    assert "d/other/c: would lie where d/sub/c is to lie" in outcome.err
    assert (target / "c").read_bytes() == b""
    missing = attached("cp", "d/sub/c", "d/a.bin", str(target / "none"))
    assert (missing.code, "is not a folder" in missing.err) == (2, True)


def test_cp_to_where_nothing_may_be_written(attached: Cli) -> None:
    outcome = attached("cp", "d/a.bin", "/proc/a.bin")
    assert outcome.code == 1
    assert outcome.err.startswith("forebay: /proc/a.bin: ")


def test_cp_leaves_nothing_half_written(cli: Cli, s3_server: S3Server, tmp_path: Path, target: Path) -> None:
    (tmp_path / "buckets/bucket/big").write_bytes(os.urandom(2 * MIB))
    cut = Fault("reset", after_bytes=MIB, match="/big")
    with ProxyProcess(s3_server.address, faults=[cut]) as proxy:
        options = (
            "--endpoint-url",
            proxy.url,
            "--option",
            "attempts=1",
        )
        assert cli("attach", "s", "s3://bucket", *options).code == 0
        outcome = cli("cp", "s/big", str(target))
    assert outcome.code == 1
    assert "big" in outcome.err
    assert names_below(target) == []


@pytest.mark.parametrize(
    ("changes", "code", "copied"), [(1, 0, b"changed 1 times"), (2, 1, b"what was there")]
)
def test_cp_of_an_object_that_changes(
    cli: Cli, target: Path, monkeypatch: pytest.MonkeyPatch, changes: int, code: int, copied: bytes
) -> None:
    assert cli("attach", "d", cli.uri, "--max-age", "0").code == 0
    (target / "a.bin").write_bytes(b"what was there")
    opened: list[str] = []

    def open_and_change(cache: Cache, path: str) -> CachedFile:
        file = real_open(cache, path)
        opened.append(path)
        if len(opened) <= changes:
            cli.write("a.bin", b"changed %d times" % len(opened))
        return file

    real_open = Cache.open
    monkeypatch.setattr(Cache, "open", open_and_change)
    outcome = cli("cp", "d/a.bin", str(target))
    assert (outcome.code, len(opened)) == (code, 2)
    assert ("the object changed" in outcome.err) == (code == 1)
    assert (target / "a.bin").read_bytes() == copied
    assert names_below(target) == ["a.bin"]


def test_cp_holds_sizes_together(attached: Cli, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(io.BytesIO):
        """Ends before its end."""

        def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
            return super().seek(offset, whence) + (whence == os.SEEK_END)

    monkeypatch.setattr(Cache, "open", lambda cache, path: Short(b"short"))
    outcome = attached("cp", "d/a.bin", str(target))
    assert outcome.code == 1
    assert "d/a.bin: 5 bytes came, the object has 6" in outcome.err
    assert names_below(target) == []


def test_cp_of_hostile_names(attached: Cli, target: Path) -> None:
    for name in (b"new\nline", b"raw\xff", b"-r", b"sp ace"):
        (attached.data / "sub" / os.fsdecode(name)).write_bytes(name)
    assert attached("cp", "-r", "d/sub", str(target)).code == 0
    for name in (b"new\nline", b"raw\xff", b"-r", b"sp ace"):
        assert (target / "sub" / os.fsdecode(name)).read_bytes() == name


def test_du(attached: Cli) -> None:
    attached.write("big", os.urandom(9 * MIB))
    (before,) = json.loads(attached("du", "--json", "d").out)
    assert before == {"path": "d", "objects": 4, "bytes": 9 * MIB + 100 * KIB + 10, "cached_bytes": 0}
    attached("cat", "d/a.bin", "d/sub/b.bin")
    assert attached("du").lines == [f"4\t{before['bytes']}\t{100 * KIB + 10}\t1.1 %\td"]
    attached("cat", "d/big", "--length", "1")
    (part,) = json.loads(attached("du", "--json", "d/big").out)
    assert (part["objects"], part["bytes"], part["cached_bytes"]) == (1, 9 * MIB, 4 * MIB)
    assert attached("du", "--human", "d/sub", "d/sub/c").lines == [
        "2\t100.0 KiB\t100.0 KiB\t100.0 %\td/sub",
        "1\t0 B\t0 B\t-\td/sub/c",
    ]
    assert attached("du", "d/none").code == 1


def test_free(attached: Cli) -> None:
    attached("cat", "d/a.bin", "d/sub/b.bin")
    freed = attached("free", "d/sub", "--json")
    assert json.loads(freed.out) == [{"path": "d/sub", "data": True, "metadata": False}]
    assert [row.split("\t")[2] for row in attached("du", "d/a.bin", "d/sub").lines] == ["10", "0"]
    assert attached("free", "d").text == "freed d\n"
    assert json.loads(attached("status", "--json").out)["blocks"] == 0
    assert attached("cat", "d/a.bin").out == b"bytes of a"


def test_free_of_metadata(cli: Cli) -> None:
    assert cli("attach", "d", cli.uri, "--immutable").code == 0
    assert "d/a.bin: 10 bytes" in cli("stat", "d/a.bin").text
    cli.write("a.bin", b"longer than before")
    assert "d/a.bin: 10 bytes" in cli("stat", "d/a.bin").text
    assert cli("free", "d", "--metadata").code == 0
    assert "d/a.bin: 18 bytes" in cli("stat", "d/a.bin").text
    both = json.loads(cli("free", "--json", "--all", "d").out)
    assert both == [{"path": "d", "data": True, "metadata": True}]
    assert cli("free", "e").code == 1


def test_sync(cli: Cli) -> None:
    assert cli("attach", "d", cli.uri, "--immutable").code == 0
    cli("ls", "-R", "d")
    cli.write("a.bin", b"longer than before")
    cli.write("new", b"")
    (cli.data / "sub/c").unlink()
    synced = cli("sync", "d", "--json")
    assert json.loads(synced.out) == [{"path": "d", "added": 1, "changed": 1, "removed": 1}]
    assert cli("cat", "d/a.bin").out == b"longer than before"
    assert cli("sync", "d").text == "d: 0 new, 0 changed, 0 gone\n"
    assert cli("sync", "d/none").code == 1
