"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from forebay import __version__
from forebay.cli import main
from forebay.config import KIB
from forebay.testing.s3 import S3Server
from tests.integration._sites import log_in, write_files

Run = Callable[..., "Outcome"]


@dataclass
class Outcome:
    """What a command line came to."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


@pytest.fixture
def place(tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data in it and the environment that names cache directory and tiers."""
    for name in ("FOREBAY_CONFIG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("FOREBAY_TIERS", f"{memory_path}:32MiB:MEM")
    files = {"a.bin": b"bytes of a", "sub/b.bin": os.urandom(100 * KIB), "sub/c": b""}
    write_files(tmp_path / "data", files)
    return tmp_path


@pytest.fixture
def run(place: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Run a command line in this process."""

    def run_one(*arguments: str) -> Outcome:
        code = main(arguments)
        captured = capfdbinary.readouterr()
        return Outcome(code, captured.out, captured.err.decode())

    return run_one


@pytest.fixture
def attached(run: Run, place: Path) -> Run:
    """The same, with the folder attached as ``d``."""
    assert run("attach", "d", (place / "data").as_uri()).code == 0
    return run


def test_attach_datasets_detach(run: Run, place: Path) -> None:
    uri = (place / "data").as_uri()
    attached = run("attach", "d", uri, "--immutable", "--retention", "lru")
    assert (attached.code, attached.text) == (0, f"attached d: {uri}\n")
    assert run("datasets").lines == [f"d\t{uri}\timmutable\tlru"]
    (dataset,) = json.loads(run("datasets", "--json").out)
    assert (dataset["name"], dataset["max_age"], dataset["retention"]) == ("d", None, "lru")
    assert run("attach", "d", uri, "--max-age", "5").code == 0
    assert run("datasets").lines == [f"d\t{uri}\t5 s\tepoch"]
    assert run("detach", "d").text == "detached d\n"
    assert run("datasets").out == b""


def test_ls(attached: Run) -> None:
    assert attached("ls").lines == ["d/"]
    assert attached("ls", "d").lines == ["d/a.bin", "d/sub/"]
    assert attached("ls", "d/sub", "d/a.bin").lines == ["d/sub/b.bin", "d/sub/c", "d/a.bin"]
    long = attached("ls", "-l", "d/sub").lines
    assert [line.split("\t")[0] for line in long] == ["100.0 KiB", "0 B"]
    listed = json.loads(attached("--json", "ls", "d").out)
    assert [(status["path"], status["size"], status["is_dir"]) for status in listed] == [
        ("d/a.bin", 10, False),
        ("d/sub", 0, True),
    ]


def test_stat(attached: Run) -> None:
    assert attached("stat", "d/a.bin").text.startswith("d/a.bin: 10 bytes, 20")
    assert attached("stat", "d/sub").text.startswith("d/sub: directory, ")
    (status,) = json.loads(attached("stat", "--json", "d/a.bin").out)
    assert status["size"] == 10


def test_cat_gives_the_bytes(attached: Run, place: Path) -> None:
    assert attached("cat", "d/a.bin").out == b"bytes of a"
    both = attached("cat", "d/sub/b.bin", "d/sub/c", "d/a.bin")
    assert both.out == (place / "data/sub/b.bin").read_bytes() + b"bytes of a"


def test_cat_of_more_than_one_part(attached: Run, place: Path) -> None:
    data = os.urandom(33 << 20)
    (place / "data/big").write_bytes(data)
    assert attached("cat", "d/big").out == data


def test_one_bad_path_does_not_stop_the_others(attached: Run) -> None:
    outcome = attached("cat", "d/none", "d/a.bin", "e/x")
    assert outcome.code == 1
    assert outcome.out == b"bytes of a"
    assert "data/none: No such file or directory" in outcome.err
    assert "see what there is with `forebay ls`" in outcome.err
    assert "no dataset 'e' is attached" in outcome.err


def test_status(attached: Run) -> None:
    attached("cat", "d/a.bin")
    attached("cat", "d/a.bin")
    shown = attached("status").text
    assert "cached    1 blocks, 10 B" in shown
    assert "1 hits, 1 misses (hit ratio 50.0 %)" in shown
    status = json.loads(attached("status", "--json").out)
    assert status["counters"]["admitted_bytes"] == 10
    prometheus = attached("status", "--prometheus").text
    assert "forebay_admitted_bytes_total 10.0\n" in prometheus
    assert attached("status", "--json", "--prometheus").code == 2


def test_check(attached: Run) -> None:
    attached("cat", "d/sub/b.bin")
    checked = attached("check")
    assert (checked.code, checked.text) == (0, "1 blocks in 1 segments, 100.0 KiB verified\n")
    assert json.loads(attached("check", "--json").out)["ok"] is True


def test_check_finds_and_repairs_damage(attached: Run, memory_path: Path, place: Path) -> None:
    attached("cat", "d/sub/b.bin")
    data = (place / "data/sub/b.bin").read_bytes()
    damaged = 0
    for path in memory_path.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if (found := content.find(data[:64])) >= 0:
            with path.open("r+b") as file:
                file.seek(found)
                file.write(bytes(64))
            damaged += 1
    assert damaged == 1
    told = attached("check")
    assert told.code == 1
    assert "forebay check --repair" in told.err
    assert attached("check", "--repair").code == 0
    assert attached("check").code == 0
    assert attached("cat", "d/sub/b.bin").out == data


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["attach", "d"], "Missing argument 'URI'"),
        (["attach", "d", "nowhere://x"], "unknown scheme 'nowhere'"),
        (["attach", "d", "file:///", "--immutable", "--max-age", "5"], "exclude each other"),
        (["attach", "d", "file:///", "--retention", "lro"], "did you mean 'lru'"),
        (["ls", "--tier", "/x:1GiB:TAPE"], "unknown medium 'TAPE'"),
        (["ls", "--tier", "/x"], "write PATH:QUOTA"),
        (["cat", "/etc/passwd"], "is absolute"),
        (["cat", "d/../x"], "contains the part"),
        (["cat"], "Missing argument"),
    ],
)
def test_wrong_usage_is_two(attached: Run, arguments: list[str], words: str) -> None:
    outcome = attached(*arguments)
    assert outcome.code == 2
    assert words in outcome.err
    assert outcome.out == b""


def test_no_cache_is_said_and_not_made(run: Run, place: Path) -> None:
    for command in (["ls"], ["status"], ["cat", "d/a"], ["datasets"], ["check"]):
        outcome = run(*command)
        assert outcome.code == 2
        assert f"{place / 'cache'}: no cache lies here" in outcome.err
        assert "forebay attach" in outcome.err
    assert not (place / "cache").exists()


def test_options_stand_before_or_behind(attached: Run, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOREBAY_CACHE_DIR")
    monkeypatch.delenv("FOREBAY_TIERS")
    cache_dir = str(place / "cache")
    assert attached("--cache-dir", cache_dir, "ls").lines == ["d/"]
    assert attached("ls", "--cache-dir", cache_dir).lines == ["d/"]
    config = place / "forebay.toml"
    config.write_text(f'cache_dir = "{cache_dir}"\n')
    assert attached("ls", "--config", str(config)).lines == ["d/"]


def test_names_cannot_write_to_the_terminal(attached: Run, place: Path) -> None:
    for name in (b"escape\x1b[2J", b"new\nline", b"raw\xff"):
        (place / "data" / os.fsdecode(name)).write_bytes(b"1")
    assert attached("ls", "d").lines == [
        "d/a.bin",
        r"d/escape\x1b[2J",
        r"d/new\nline",
        r"d/raw\xff",
        "d/sub/",
    ]
    assert "\x1b" not in attached("cat", "d/none\x1b[2J").err


def test_help_and_version(run: Run) -> None:
    shown = run("--help")
    assert shown.code == 0
    for command in ("attach", "cat", "check", "datasets", "detach", "ls", "stat", "status"):
        assert f"\n  {command}" in shown.text
        assert run(command, "--help").code == 0
    assert run("--version").text == f"forebay, version {__version__}\n"


def forebay(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # any of its options
        [sys.executable, "-m", "forebay", *arguments], text=True, timeout=60, **options
    )


def test_the_module_runs_and_exits_with_the_code(attached: Run) -> None:
    assert forebay("cat", "d/a.bin", capture_output=True).stdout == "bytes of a"
    assert forebay("cat", "d/none", capture_output=True).returncode == 1
    assert forebay("cat", capture_output=True).returncode == 2


def test_verbose_shows_the_traceback(attached: Run) -> None:
    # In a process of its own, since it sets up logging.
    assert "Traceback" not in forebay("stat", "d/none", capture_output=True).stderr
    assert "Traceback" in forebay("stat", "d/none", "-v", capture_output=True).stderr


def test_a_closed_pipe_is_no_traceback(attached: Run, place: Path) -> None:
    (place / "data/big").write_bytes(os.urandom(4 << 20))
    command = f"{sys.executable} -m forebay cat d/big d/big d/big | head -c 10 | wc -c"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("10", "")


def test_help_imports_no_command() -> None:
    script = (
        "import sys; from forebay.cli import main; main(['--help'])\n"
        "heavy = {'boto3', 'lmdb', 'rich', 'prometheus_client', 'forebay.cache', 'forebay.store'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    (tmp_path / "buckets/bucket").mkdir(parents=True)
    (tmp_path / "buckets/bucket/a.bin").write_bytes(b"from S3")
    with S3Server(tmp_path / "buckets") as server:
        log_in(server, monkeypatch)
        yield server


def test_s3(run: Run, server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = ("--endpoint-url", server.endpoint_url)
    assert run("attach", "s", "s3://bucket", *endpoint).code == 0
    assert run("ls", "s").lines == ["s/a.bin"]
    assert run("cat", "s/a.bin").out == b"from S3"
    gone = run("attach", "t", "s3://gone", *endpoint)
    assert (gone.code, "bucket does not exist" in gone.err) == (1, True)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    refused = run("attach", "t", "s3://bucket", *endpoint)
    assert refused.code == 1
    assert "HTTP 403" in refused.err
    assert "AWS_PROFILE" in refused.err
    assert "wrong-secret" not in refused.err
