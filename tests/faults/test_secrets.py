"""Secrets that were planted wherever one could be put are found nowhere afterwards.

Planted: in the environment (where they belong, and are used), in the settings, in URIs and options. Looked
through: what every command prints, logs (-vv) and fails with, the command lines of processes that it starts,
metrics, pickles, and every file of the cache.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from forebay.cache import Cache
from forebay.config import KIB
from forebay.errors import ConfigError
from forebay.settings import load_settings
from forebay.testing.s3 import S3Server

SECRET = "hunter2PLANTEDhunter2"
TIMEOUT_S = 60

# As -m forebay, but it tells of every process that is started, in the file named by the first argument.
AUDITED = """
import json, sys
out = open(sys.argv.pop(1), "a")
def hook(event, args):
    if event in ("os.posix_spawn", "os.exec", "subprocess.Popen"):
        out.write(json.dumps([event, repr(args[:2])]) + "\\n"); out.flush()
sys.addaudithook(hook)
from forebay.cli import main
sys.exit(main())
"""


class Place:
    """A cache, a server whose secret key is the planted one, and everything that was printed."""

    def __init__(self, folder: Path, tier: Path, environ: Mapping[str, str]) -> None:
        self.folder, self.tier = folder, tier
        self.environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FOREBAY_"))
        }
        self.environ |= environ
        self.environ |= {"FOREBAY_CACHE_DIR": str(folder / "cache"), "FOREBAY_TIERS": f"{tier}:64MiB:MEM"}
        self.started = folder / "started"

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command line, as loud as it can be, and look through what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", AUDITED, str(self.started), *arguments, "-vv"],
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert SECRET not in done.stdout
        assert SECRET not in done.stderr
        return done

    def look_through_files(self) -> int:
        """Look through all files of the cache, and return how many there are."""
        files = [
            path
            for folder in (self.folder / "cache", self.tier)
            for path in folder.rglob("*")
            if path.is_file()
        ]
        found = [str(path) for path in files if SECRET.encode() in path.read_bytes()]
        assert found == []
        return len(files)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests: what any of them leaves behind is looked for by those that follow."""
    folder = tmp_path_factory.mktemp("secrets")
    bucket = folder / "buckets/bucket"
    bucket.mkdir(parents=True)
    for number in range(3):
        (bucket / f"{number}.bin").write_bytes(os.urandom(100 * KIB))
    with (
        TemporaryDirectory(prefix="forebay-test-", dir="/dev/shm") as tier,
        S3Server(folder / "buckets", secret_key=SECRET) as server,
    ):
        place = Place(folder, Path(tier), server.environ())
        attached = place.run("attach", "s", "s3://bucket", "--endpoint-url", server.endpoint_url)
        assert attached.returncode == 0, attached.stderr
        yield place


def test_the_detector_detects(place: Place) -> None:
    with pytest.raises(AssertionError):
        place.run("cat", f"s/{SECRET}")


def test_credentials_of_the_environment(place: Place, tmp_path: Path) -> None:
    for arguments in (
        ["datasets", "--json"],
        ["ls", "-lR", "s"],
        ["stat", "--json", "s/0.bin"],
        ["cp", "-r", "s", str(tmp_path / "target")],
        ["du", "--json"],
        ["load", "s", "--verify"],
        ["load", "s", "--background"],
        ["jobs", "--json"],
        ["sync", "s"],
        ["status"],
        ["status", "--json"],
        ["status", "--prometheus"],
        ["top", "--once", "--interval", "0.1"],
        ["check", "--json"],
    ):
        done = place.run(*arguments)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
    assert place.look_through_files() > 3
    started = place.started.read_text()
    assert "resume" in started, "a load in the background is a process of its own"
    assert SECRET not in started


def test_credentials_that_are_refused(place: Place) -> None:
    wrong = {"AWS_SECRET_ACCESS_KEY": f"{SECRET}x", "AWS_SESSION_TOKEN": SECRET}
    assert place.run("free", "--all", "s").returncode == 0
    for arguments in (["cat", "s/0.bin"], ["ls", "--json", "s"], ["load", "s"]):
        done = place.run(*arguments, **wrong)
        assert done.returncode == 1
        assert "403" in done.stderr + done.stdout
    assert place.look_through_files() > 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["attach", "t", f"s3://key:{SECRET}@bucket"],
        ["attach", "t", f"nowhere://key:{SECRET}@bucket"],
        ["attach", "t", f"file://key:{SECRET}@host/folder"],
        ["attach", "t", f"http://user:{SECRET}@127.0.0.1:1/x"],
        ["attach", "t", f"https://127.0.0.1:1/x?X-Amz-Signature={SECRET}"],
        ["attach", "t", f"http://127.0.0.1:1/x?token={SECRET}"],
        ["attach", "t", f"abfs://container@account/x?sig={SECRET}"],
        ["attach", "t", "s3://bucket", "--endpoint-url", f"http://user:{SECRET}@127.0.0.1:1"],
        ["attach", "t", "s3://bucket", "--option", f"secret_access_key={SECRET}"],
        ["attach", "t", "s3://bucket", "--option", f"aws_session_token={SECRET}"],
        ["attach", "t", "http://127.0.0.1:1/x", "--option", f"password={SECRET}"],
        ["attach", "t", "http://127.0.0.1:1/x", "--option", f'headers={{"Authorization": "{SECRET}"}}'],
        ["attach", "t", "http://127.0.0.1:1/x", "--option", f'client_kwargs={{"token": "{SECRET}"}}'],
        ["ls", "--set", f"secret={SECRET}"],
        ["ls", "--set", f"cache_dir=s3://key:{SECRET}@bucket"],
        ["load", "s", "--files-from", f"s3://key:{SECRET}@bucket/list"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(SECRET, "SECRET"),
)
def test_secrets_where_they_do_not_belong(place: Place, arguments: list[str]) -> None:
    done = place.run(*arguments)
    assert done.returncode == 2, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("forebay: ")]
    assert len(told) >= 1
    assert place.look_through_files() > 3
    assert [dataset["name"] for dataset in json.loads(place.run("datasets", "--json").stdout)] == ["s"]


@pytest.mark.parametrize(
    "text",
    [
        f'secret_access_key = "{SECRET}"',
        f'[s3]\ntoken = "{SECRET}"',
        f'cache_dir = "https://user:{SECRET}@host/cache"',
        f'[[tiers]]\npath = "/t"\nquota = "1GiB"\npassword = "{SECRET}"',
        f'token = {{ "{SECRET}" = 1 }}',
        f'aws = "{SECRET}"',
        f'stall_timeout_s = "{SECRET}"',
        f'rows = "{SECRET}"',
        f'read_only = "{SECRET}"',
        f'secret = "{SECRET}',
        f'token_file = "fb1.{SECRET}.{SECRET}"',
        f'[group]\ntoken_file = "{SECRET}"',
        f'tls_key_file = "-----BEGIN PRIVATE KEY----- {SECRET}"',
    ],
    ids=lambda text: text.replace(SECRET, "SECRET"),
)
def test_secrets_in_the_settings(place: Place, tmp_path: Path, text: str) -> None:
    file = tmp_path / "forebay.toml"
    file.write_text(text)
    for arguments in (["ls", "--config", str(file)], ["ls", "--json", "--config", str(file)]):
        done = place.run(*arguments)
        assert done.returncode == 2
        assert str(file) in done.stderr
    with pytest.raises(ConfigError) as caught:
        load_settings(str(file), environ={})
    assert SECRET.encode() not in pickle.dumps(caught.value)


def test_pickles(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.environ.items():
        monkeypatch.setenv(name, value)
    with Cache(place.folder / "cache") as cache:
        assert bytes(cache.read("s/0.bin"))
        assert SECRET.encode() not in pickle.dumps(cache)
        assert SECRET not in repr(vars(cache))
        assert SECRET not in json.dumps(cache.status())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{SECRET}x")
    with Cache(place.folder / "cache") as cache:
        cache.free("s", metadata=True)
        with pytest.raises(PermissionError) as caught:
            cache.read("s/1.bin")
        assert SECRET.encode() not in pickle.dumps(caught.value)
        assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
