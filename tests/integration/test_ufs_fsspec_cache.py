"""The cache over fsspec's http:// and memory://, forked children, and where secrets may not turn up."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
import textwrap
import traceback
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from forebay.config import KIB
from forebay.errors import ConfigError, NotFound, UnderStorageError
from forebay.ufs import open_storage
from tests._web import Handler, WebServer
from tests.integration._sites import OpenCache
from tests.integration._web_site import DATA, make_site, plain_server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_site(tmp_path / "web")


@pytest.fixture
def web(folder: Path) -> Iterator[WebServer]:
    with WebServer(folder) as server:
        yield server


def test_the_cache_over_a_server_without_ranges(open_cache: OpenCache, folder: Path) -> None:
    """A small file is read whole; a part of a larger one says why it cannot be."""
    cache = open_cache()
    (folder / "block").write_bytes(DATA[: 64 * KIB])
    with plain_server(folder) as url:
        cache.attach("d", url)
        for _ in range(2):
            with cache.read("d/block") as view:
                assert bytes(view) == DATA[: 64 * KIB]
        with pytest.raises(UnderStorageError, match="the server ignores ranges"):
            cache.read("d/big", 200 * KIB, 10)


def test_the_cache_over_http(web: WebServer, open_cache: OpenCache, folder: Path) -> None:
    cache = open_cache()
    cache.attach("d", web.url, max_age=0)
    assert sorted(cache.listdir("d")) == ["big", "sub"]
    with cache.read("d/big") as view:
        assert hashlib.sha256(view).digest() == hashlib.sha256(DATA).digest()
    web.requests.clear()
    with cache.read("d/big") as view:
        assert bytes(view) == DATA
    assert {method for method, _, _ in web.requests} == {"HEAD"}
    (folder / "new").write_bytes(DATA[::-1])
    (folder / "new").replace(folder / "big")
    with cache.read("d/big") as view:
        assert bytes(view) == DATA[::-1]
    (folder / "big").unlink()
    with pytest.raises(NotFound):
        cache.read("d/big")


def test_the_cache_over_memory(open_cache: OpenCache) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/cached/a/b", DATA)
    cache = open_cache()
    cache.attach("d", "memory://cached", max_age=0)
    with cache.read("d/a/b") as view:
        assert bytes(view) == DATA
    memory.pipe_file("/cached/a/b", DATA[::-1])
    with cache.read("d/a/b") as view:
        assert bytes(view) == DATA[::-1]
    memory.rm("/cached", recursive=True)


SECRET = "hunter2-5ecret"


def guarded(handler: Handler) -> object:
    expected = "Basic " + b64encode(f"reader:{SECRET}".encode()).decode()
    if handler.headers.get("Authorization") != expected:
        handler.reply(401, b"who are you?", WWW_Authenticate='Basic realm="x"')
        return None
    return False


def test_a_password_comes_from_netrc_and_goes_nowhere_else(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    storage = open_storage(web.url, {"attempts": 1})
    web.script.extend([guarded, guarded])
    with pytest.raises(PermissionError, match="401"):
        storage.stat("big")
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login reader password {SECRET}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert storage.stat("big").size == len(DATA)
    web.script.append(lambda handler: handler.reply(403))
    with pytest.raises(PermissionError) as raised:
        storage.stat("big")
    storage.close()
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert SECRET.encode() not in pickle.dumps(raised.value)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("uri", "options"),
    [
        (f"http://user:{SECRET}@127.0.0.1/a", {}),
        (f"http://127.0.0.1/a?token={SECRET}", {}),
        ("http://127.0.0.1/a", {"client_kwargs": {"headers": {"Authorization": SECRET}}}),
        ("memory://a", {"token": SECRET}),
        ("memory://a", {"password": SECRET}),
    ],
)
def test_a_secret_given_to_attach_is_kept_nowhere(
    open_cache: OpenCache,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    uri: str,
    options: dict[str, object],
) -> None:
    caplog.set_level("DEBUG")
    cache = open_cache()
    with pytest.raises(ConfigError) as raised:
        cache.attach("d", uri, **options)  # type: ignore[arg-type]  # any option
    assert SECRET not in "".join(traceback.format_exception(raised.value))
    assert SECRET not in caplog.text
    assert SECRET.encode() not in pickle.dumps(cache)
    for path in (tmp_path / "cache").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


FORKING = """
import gc, os, sys
from forebay.ufs import open_storage

def read(storage):
    with storage.read_range("big", 10, 1000) as body:
        buffer = bytearray(body.length)
        body.readinto(memoryview(buffer))
    return bytes(buffer)

storage = open_storage(sys.argv[1], {"attempts": 1})
expected = read(storage)
for way in ("leave", "drop", "use"):
    pid = os.fork()
    if pid == 0:
        if way == "drop":
            del storage
            gc.collect()
        elif way == "use":
            own = open_storage(sys.argv[1], {})
            assert read(own) == expected
            own.close()
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert read(storage) == expected
storage.close()
print("done")
"""


def test_a_forked_child_does_not_disturb_its_parent(web: WebServer) -> None:
    """Neither by what it drops nor by what the libraries do at its exit, and it can read for itself."""
    finished = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING), web.url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (finished.returncode, finished.stdout) == (0, "done\n"), finished.stderr
    assert finished.stderr == ""
    # One connection for all that the parent read, one for the child that read.
    assert web.connection_count == 2
