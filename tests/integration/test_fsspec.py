"""``forebay://``: what fsspec's users may expect of it beyond fsspec's own tests."""

from __future__ import annotations

import asyncio
import io
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import UTC
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import pytest
from fsspec.core import url_to_fs

from forebay.api.fsspec import ForebayFileSystem
from forebay.config import Tier
from forebay.errors import Closed, ConfigError
from tests._s3 import FakeS3, Handler, give_keys
from tests.integration._fsspec import Site, site

__all__ = ["site"]

TREE = {"a": b"bytes of a", "sub/b": bytes(range(256)) * 1024, "sub/deep/c": b"", "sub/x.txt": b"1\n2\n"}


@pytest.fixture
def tree(site: Site) -> Site:
    for name, data in TREE.items():
        site.write(name, data)
    return site


def test_listings_name_what_there_is(tree: Site) -> None:
    fs = tree.fs
    assert fs.ls("", detail=False) == fs.ls("forebay://", detail=False) == ["d", "fixed"]
    assert fs.ls("forebay://d/", detail=False) == ["d/a", "d/sub"]
    assert fs.find("d") == sorted(f"d/{name}" for name in TREE)
    assert fs.glob("d/**/*.txt") == ["d/sub/x.txt"]
    assert list(fs.walk("d/sub")) == [("d/sub", ["deep"], ["b", "x.txt"]), ("d/sub/deep", [], ["c"])]
    assert fs.du("d") == sum(map(len, TREE.values()))
    assert [fs.isdir(path) for path in ("", "d", "d/sub", "d/a", "d/no", "no/a")] == [True] * 3 + [False] * 3
    info = fs.info("d/a")
    assert (info["name"], info["size"], info["type"]) == ("d/a", 10, "file")
    assert fs.modified("d/a").timestamp() == pytest.approx((tree.folder / "a").stat().st_mtime)
    assert fs.created("d/a").tzinfo is UTC


def test_bytes_and_ranges(tree: Site) -> None:
    fs, data = tree.fs, TREE["sub/b"]
    assert fs.cat("d/a") == b"bytes of a"
    assert fs.cat("d/sub", recursive=True) == {f"d/{n}": b for n, b in TREE.items() if n.startswith("sub/")}
    assert fs.cat_file("d/a", start=-4, end=-1) == b"of a"[:-1]
    assert fs.cat_file("d/sub/b", start=65_530, end=65_600) == data[65_530:65_600]
    ranges = [(0, 10), (5, 70_000), (131_072, None), (-3, None), (500_000, 500_010), (7, 7)]
    starts, ends = zip(*ranges, strict=True)
    found = fs.cat_ranges(["d/sub/b"] * len(ranges), starts, ends)
    assert found == [data[start:end] for start, end in ranges]
    found = fs.cat_ranges(["d/a", "d/no"], 0, 5)
    assert found[0] == b"bytes"
    assert isinstance(found[1], FileNotFoundError)
    with pytest.raises(FileNotFoundError, match="/no"):
        fs.cat_ranges(["d/a", "d/no"], 0, 5, on_error="raise")
    assert fs.cat(["d/a", "d/no"], on_error="omit") == {"d/a": b"bytes of a"}


def test_many_objects_come_in_their_order_beside_one_that_is_not_there(tree: Site) -> None:
    data = {f"d/many/{number:03}": b"%03d" % number * 1_000 for number in range(700)}
    (tree.folder / "many").mkdir()
    for name, content in data.items():
        (tree.folder / name.removeprefix("d/")).write_bytes(content)
    paths = list(data)
    asked = [*paths[:300], "d/many/none", *paths[300:]]
    # The first brings them, the second has all but one of them at once.
    for _ in range(2):
        assert list(tree.fs.cat(asked, on_error="omit").items()) == list(data.items())
    assert isinstance(tree.fs.cat(asked, on_error="return")["d/many/none"], FileNotFoundError)
    assert tree.fs.cat(paths) == data


def test_what_cat_returns_follows_what_was_asked_for(tree: Site) -> None:
    fs, a = tree.fs, b"bytes of a"
    assert fs.cat("d/a", recursive=True) == fs.cat(PurePosixPath("d/a")) == fs.cat("forebay://d/a") == a
    assert fs.cat(["d/a"]) == fs.cat(["d/a"], recursive=True) == fs.cat("d/a*") == {"d/a": a}
    assert fs.cat("d/sub/deep", recursive=True) == {"d/sub/deep/c": b""}
    assert fs.cat("d/a", start=2, end=-2) == a[2:-2]
    assert fs.cat(["d/a", "d/a"], start=-1) == {"d/a": a[-1:]}
    with pytest.raises(FileNotFoundError):
        fs.cat("d/none*")


def test_a_path_may_be_one_of_pathlib(tree: Site) -> None:
    fs: Any = tree.fs
    path = PurePosixPath("d/a")
    assert fs.cat_file(path) == fs.cat_ranges([path], 0, None)[0] == b"bytes of a"
    assert asyncio.run(fs._cat_file(path)) == b"bytes of a"
    assert fs.info(path)["name"] == "d/a"
    with fs.open(path) as file:
        assert file.path == "d/a"


def test_a_file_is_got_into_an_open_one(tree: Site) -> None:
    target = io.BytesIO(b"12")
    target.seek(2)
    tree.fs.get_file("d/a", target)
    assert target.getvalue() == b"12bytes of a"


def test_an_object_beyond_what_one_read_may_gather_is_read(tree: Site) -> None:
    fs = ForebayFileSystem(**tree.options, max_read_bytes=100_000)
    assert fs.cat_file("d/sub/b") == TREE["sub/b"]
    assert fs.cat(["d/a", "d/sub/b"])["d/sub/b"] == TREE["sub/b"]


def test_a_key_is_of_the_version(tree: Site) -> None:
    fs = tree.fs
    before, number = fs.ukey("d/a"), fs.checksum("d/a")
    assert (fs.ukey("d/a"), fs.checksum("d/a")) == (before, number)
    fs.pipe_file("d/a", b"others of a")
    assert fs.ukey("d/a") != before
    assert fs.checksum("d/a") != number


def test_what_others_change_is_seen_once_the_cache_forgets(tree: Site) -> None:
    fs = tree.fs
    assert fs.cat("d/a") == b"bytes of a"
    (tree.folder / "a").write_bytes(b"new")
    assert fs.cat("d/a") == b"bytes of a"
    fs.invalidate_cache("d/a")
    assert fs.cat("d/a") == b"new"


def test_a_refresh_asks_anew(tree: Site) -> None:
    fs = tree.fs
    assert (len(fs.ls("fixed")), fs.info("fixed/a")["size"]) == (2, 10)
    tree.write("a", b"newer")
    tree.write("later", b"")
    assert (len(fs.ls("fixed")), fs.info("fixed/a")["size"]) == (2, 10)
    assert fs.info("fixed/a", refresh=True)["size"] == 5
    assert fs.ls("fixed", detail=False, refresh=True) == ["fixed/a", "fixed/later", "fixed/sub"]
    assert "fixed/sub/b" in fs.find("fixed")
    tree.write("sub/later", b"")
    assert "fixed/sub/later" not in fs.find("fixed")
    assert "fixed/sub/later" in fs.find("fixed", refresh=True)
    assert asyncio.run(fs._ls("fixed/later", detail=False, refresh=True)) == ["fixed/later"]


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda fs: fs.cat("d/no"), FileNotFoundError, "/no"),
        (lambda fs: fs.open("d/no"), FileNotFoundError, "/no"),
        (lambda fs: fs.info("dd/a"), FileNotFoundError, "did you mean 'd'"),
        (lambda fs: fs.mv_file("d/a", "none/a"), FileNotFoundError, r"'none' .*: 'none/a'$"),
        (lambda fs: fs.put_file(__file__, "none/a"), FileNotFoundError, r"'none' .*: 'none/a'$"),
        (lambda fs: fs.cat_file("d/sub"), IsADirectoryError, "/sub"),
        (lambda fs: fs.cat_file(""), IsADirectoryError, "list of datasets"),
        (lambda fs: fs.rm("d/sub"), IsADirectoryError, "recursive"),
        (lambda fs: fs.mkdir("d/sub"), FileExistsError, "d/sub"),
        (lambda fs: fs.makedirs("d/a", exist_ok=True), FileExistsError, "/a"),
        (lambda fs: fs.open("d/a", "xb"), FileExistsError, "/a"),
        (lambda fs: fs.rmdir("d/sub"), OSError, "not empty"),
        (lambda fs: fs.rmdir("d/a"), NotADirectoryError, "d/a"),
        (lambda fs: fs.pipe("fixed/a", b"x"), PermissionError, "fixed"),
        (lambda fs: fs.rm("fixed/a"), PermissionError, "fixed"),
        (lambda fs: fs.open("fixed/n", "wb"), PermissionError, "fixed"),
        (lambda fs: fs.open("d/a", "r+b"), ValueError, "'r.b'"),
        (lambda fs: fs.open("fixed/a", "ab"), PermissionError, "fixed"),
        (lambda fs: fs.open("d/sub", "ab"), IsADirectoryError, "/sub"),
    ],
)
def test_errors_are_those_of_files(tree: Site, call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call(tree.fs)
    assert tree.fs.find("d") == sorted(f"d/{name}" for name in TREE)


def test_a_wrong_option_is_refused_with_the_nearest(tree: Site) -> None:
    with pytest.raises(TypeError, match=r"unknown option 'cachedir' .did you mean 'cache_dir'"):
        fsspec.filesystem("forebay", cachedir="secret-value")
    with pytest.raises(TypeError, match=r"'asynchronus' .did you mean 'asynchronous'"):
        fsspec.filesystem("forebay", asynchronus=True)
    with pytest.raises(TypeError, match="credential") as raised:
        url_to_fs("forebay::file:///x", file={"auto_mkdir": "secret-value"})
    assert "secret-value" not in str(raised.value)


def test_a_dataset_is_found_by_its_uri(tree: Site) -> None:
    fs, options = tree.fs, tree.options
    uri = f"file://{tree.folder}"
    assert fs.cat(f"forebay://{uri}/a") == b"bytes of a"
    assert fs.ls(f"{uri}/sub", detail=False) == [f"{uri}/sub/{name}" for name in ("b", "deep", "x.txt")]
    assert fs.glob(f"{uri}/**/*.txt") == [f"{uri}/sub/x.txt"]
    chained, path = url_to_fs(f"forebay::{uri}/sub", **options)
    assert path == f"{tree.folder}/sub"
    assert sorted(chained.find(path)) == [f"{path}/{name}" for name in ("b", "deep/c", "x.txt")]
    with fsspec.open(f"forebay::{uri}/a", **options) as file:
        assert file.read() == b"bytes of a"
    assert chained.cache is fs.cache
    with pytest.raises(FileNotFoundError, match=r"attach it first.*s3://bucket/x"):
        fs.cat("s3://bucket/x")


@pytest.mark.parametrize("over", ["simplecache", "filecache"])
def test_fsspecs_own_caching_file_systems_read_through_it(tree: Site, tmp_path: Path, over: str) -> None:
    for _ in range(2):
        options = {"forebay": tree.options, over: {"cache_storage": str(tmp_path / over)}}
        with fsspec.open(f"{over}::forebay://d/sub/b", **options) as file:
            file.seek(-10, os.SEEK_END)
            assert file.read() == TREE["sub/b"][-10:]


def test_an_archive_is_read_through_it(tree: Site) -> None:
    with zipfile.ZipFile(tree.folder / "z.zip", "w") as archive:
        archive.writestr("in/a.txt", "in the archive")
    for url in ("zip://in/a.txt::forebay://d/z.zip", f"zip://in/a.txt::forebay::file://{tree.folder}/z.zip"):
        with fsspec.open(url, forebay=tree.options) as file:
            assert file.read() == b"in the archive"


def test_instances_are_shared_and_so_is_the_cache(tree: Site) -> None:
    assert fsspec.filesystem("forebay", **tree.options) is tree.fs
    other = fsspec.filesystem("forebay", asynchronous=True, **tree.options)
    assert other is not tree.fs
    assert other.cache is tree.fs.cache


def test_options_of_fsspec_itself_are_let_pass(tree: Site) -> None:
    own: dict[str, Any] = {
        "use_listings_cache": True,
        "listings_expiry_time": 10,
        "max_paths": 3,
        "batch_size": 5,
    }
    fs = ForebayFileSystem(**own, skip_instance_cache=True, **tree.options)
    assert fs.cat("d/a") == b"bytes of a"
    assert fs.cache is tree.fs.cache


def test_an_instance_is_of_one_directory_wherever_it_is_taken(
    tree: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = Tier(tree.options["tiers"].split(":")[0], 64 << 20, "MEM")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    fs = ForebayFileSystem(cache_dir="cache", tiers=[tier], config_file=None, block_bytes=1 << 16)
    pickled, json = pickle.dumps(fs), fs.to_json()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for again in (pickle.loads(pickled), ForebayFileSystem.from_json(json), fs):
        assert again.cat("d/a") == b"bytes of a"
    assert os.listdir() == []
    assert pickle.loads(pickle.dumps(tree.fs)) is tree.fs
    assert ForebayFileSystem.from_json(tree.fs.to_json()) is tree.fs


def test_a_cache_that_was_closed_is_opened_anew_by_a_new_instance(tree: Site, tmp_path: Path) -> None:
    options: dict[str, Any] = {"cache_dir": str(tmp_path / "other"), "tiers": f"{tmp_path}/tier:16MiB:SSD"}
    fs = ForebayFileSystem(**options)
    fs.cache.attach("d", f"file://{tree.folder}")
    fs.cache.close()
    assert fs.cache.closed
    with pytest.raises(Closed):
        fs.cat("d/a")
    again = ForebayFileSystem(skip_instance_cache=True, **options)
    assert again.cat("d/a") == b"bytes of a"
    assert not again.cache.closed
    again.cache.close()


def test_a_file_is_one_of_python(tree: Site) -> None:
    with tree.fs.open("d/sub/x.txt", "r") as text:
        assert text.readlines() == ["1\n", "2\n"]
    with tree.fs.open("d/sub/b") as file:
        assert (file.size, file.path, file.info()["type"]) == (len(TREE["sub/b"]), "d/sub/b", "file")
        file.seek(100)
        again = pickle.loads(pickle.dumps(file))
        assert again.read(10) == file.read(10) == TREE["sub/b"][100:110]
        again.close()
    with tree.fs.open("d/sub/b", cache_type="readahead", block_size=1000) as cached:
        cached.seek(70_000)
        assert cached.read(5) == TREE["sub/b"][70_000:70_005]


def test_writing_is_by_an_orderly_close_alone(tree: Site) -> None:
    fs = tree.fs
    with suppress(KeyError), fs.open("d/new", "wb") as file:
        file.write(b"half")
        raise KeyError
    assert not fs.exists("d/new")
    with fs.transaction:
        with fs.open("d/one", "wb") as file:
            file.write(b"1")
        assert not fs.exists("d/one")
    assert fs.cat("d/one") == b"1"
    with suppress(KeyError), fs.transaction:
        with fs.open("d/two", "wb") as file:
            file.write(b"2")
        raise KeyError
    assert not fs.exists("d/two")


def test_an_object_is_written_on_at_its_end(tree: Site) -> None:
    fs = tree.fs
    with fs.open("d/sub/x.txt", "a") as file:
        file.write("3\n")
    assert fs.cat("d/sub/x.txt") == b"1\n2\n3\n"
    with fs.open("d/log", "ab") as file:
        file.write(b"first")
    with fsspec.open("forebay://d/log", "ab", **tree.options) as file:
        file.write(b", second")
    assert fs.cat("d/log") == b"first, second"
    with suppress(KeyError), fs.open("d/log", "ab") as file:
        file.write(b"half")
        raise KeyError
    assert (tree.folder / "log").read_bytes() == b"first, second"


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zip"])
def test_what_is_compressed_on_its_way_is_written(tree: Site, kind: str) -> None:
    fs, path = tree.fs, f"d/packed.{kind}"
    with fs.open(path, "wb", compression=kind) as file:
        file.write(b"packed")
    with fs.open(path, compression=kind) as file:
        assert file.read() == b"packed"
    with fs.transaction:
        with fs.open(path, "w", compression=kind) as text:
            text.write("packed text")
        with fs.open(path, compression=kind) as file:
            assert file.read() == b"packed"
    with fsspec.open(f"forebay://{path}", "rt", compression=kind, **tree.options) as text:
        assert text.read() == "packed text"


@pytest.mark.parametrize("kind", ["gzip", "zip"])
def test_what_failed_while_it_was_compressed_is_not_written(tree: Site, kind: str) -> None:
    fs = tree.fs
    for context in (nullcontext(), fs.transaction):
        with context:
            with suppress(KeyError), fs.open("d/packed", "wb", compression=kind) as file:
                file.write(b"half")
                raise KeyError
            with pytest.raises(ValueError, match="zpi"):
                fs.open("d/packed", "wb", compression="zpi")
        assert not fs.exists("d/packed"), context
    dropped = fs.open("d/packed", "wb", compression=kind)
    dropped.write(b"half")
    del dropped
    assert not fs.exists("d/packed")


def test_what_failed_within_a_transaction_is_not_put_at_its_end(tree: Site) -> None:
    with tree.fs.transaction:
        with suppress(KeyError), tree.fs.open("d/half", "wb") as file:
            file.write(b"half")
            raise KeyError
        with tree.fs.open("d/whole", "wb") as file:
            file.write(b"whole")
    assert not tree.fs.exists("d/half")
    assert tree.fs.cat("d/whole") == b"whole"


def test_fsspecs_caches_may_fetch_from_threads_of_their_own(tree: Site) -> None:
    data = os.urandom(1 << 20)
    path = tree.write("large", data)
    wrong: list[int] = []

    def fetch(seed: int) -> None:
        places = random.Random(seed)
        for _ in range(2_000):
            start = places.randrange(len(data) - 100)
            if file._fetch_range(start, start + 100) != data[start : start + 100]:
                wrong.append(start)

    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        file = tree.fs.open(path, cache_type="background", block_size=4096)
        with file, ThreadPoolExecutor(2) as threads:
            list(threads.map(fetch, range(2)))
    finally:
        sys.setswitchinterval(switch_s)
    assert not wrong


def test_a_dataset_detached_under_an_open_file(tree: Site) -> None:
    with tree.fs.open("d/sub/b") as file:
        assert file.read(10) == TREE["sub/b"][:10]
        tree.cache.detach("d")
        with pytest.raises(OSError, match="sub/b"):
            file.read()
    with pytest.raises(FileNotFoundError):
        tree.fs.cat("d/a")


def test_no_secret_is_in_a_pickle_and_another_user_can_load_it(
    tree: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"AWS_SECRET_ACCESS_KEY": "planted-secret-1", "AWS_SESSION_TOKEN": "planted-secret-2"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    token = tmp_path / "token"
    token.write_text("planted-secret-3")
    fs = ForebayFileSystem(**tree.options, token_file=str(token))
    pickled = pickle.dumps(fs)
    assert b"planted-secret" not in pickled
    assert b"planted-secret" not in fs.to_json().encode()
    program = "import pickle, sys; print(pickle.load(sys.stdin.buffer).cat('d/a'))"
    other = subprocess.run([sys.executable, "-c", program], input=pickled, capture_output=True, check=True)
    assert other.stdout == b"b'bytes of a'\n"
    context = multiprocessing.get_context("fork")
    said = context.Queue()
    child = context.Process(target=_load_as_nobody, args=(pickled, said))
    child.start()
    # Only root can be another user, and only the owner of a cache directory may look into it.
    assert said.get(timeout=60) == ("ForebayFileSystem", os.geteuid() != 0)
    child.join()


def _load_as_nobody(pickled: bytes, said: Any) -> None:
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    fs = pickle.loads(pickled)
    try:
        said.put((type(fs).__name__, fs.cat("d/a") == b"bytes of a"))
    except (PermissionError, ConfigError):
        said.put((type(fs).__name__, False))


def _read_in_child(fs: ForebayFileSystem, folder: str, found: Any) -> None:
    fs.get(["d/a", "d/sub/b"], [f"{folder}/a", f"{folder}/b"])
    found.put((fs.cat("d/a"), fs.glob("d/*"), Path(folder, "b").read_bytes() == TREE["sub/b"]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_goes_on_with_what_it_has(tree: Site, tmp_path: Path, method: str) -> None:
    assert tree.fs.cat(["d/a", "d/sub/x.txt"])
    tree.fs.get("d/a", str(tmp_path / "warm"))
    context: Any = multiprocessing.get_context(method)
    found = context.Queue()
    child = context.Process(target=_read_in_child, args=(tree.fs, str(tmp_path), found))
    child.start()
    assert found.get(timeout=60) == (b"bytes of a", ["d/a", "d/sub"], True)
    child.join()
    assert child.exitcode == 0


def test_a_miss_does_not_hold_the_loop_up(tree: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    give_keys(monkeypatch)
    goes_on = threading.Event()

    def wait(handler: Handler) -> bool:
        if handler.path.endswith("/slow"):
            assert goes_on.wait(60)
        return False

    async def read() -> list[bytes]:
        fs = ForebayFileSystem(asynchronous=True, skip_instance_cache=True, **tree.options)
        slow = asyncio.ensure_future(fs._cat_file("s/slow"))
        await asyncio.sleep(0)
        fast = await fs._cat_file("s/fast")
        assert not slow.done()
        goes_on.set()
        return [fast, await slow, await fs._cat_file("s/slow")]

    with FakeS3() as server:
        server.objects.update(slow=b"slow", fast=b"fast")
        tree.cache.attach("s", "s3://bucket", endpoint_url=server.url)
        server.interfere = wait
        assert asyncio.run(read()) == [b"fast", b"slow", b"slow"]
