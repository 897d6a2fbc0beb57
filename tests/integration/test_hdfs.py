"""Hadoop's FileSystem contract over a writable folder, in the caller's process."""

from __future__ import annotations

import errno
import io
import os
import pickle
import socket
import threading
from array import array
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from forebay.api.hadoop.status import BlockLocation, ContentSummary
from forebay.api.hdfs import BLOCK_BYTES, FileSystem
from forebay.cache import Cache
from forebay.config import KIB, MIB
from forebay.errors import Stale, under_storage_error
from forebay.remote import Holder, NoRemote
from tests.integration._sites import OpenCache

FILES = {
    "a.bin": b"bytes of a",
    "sub/b.bin": os.urandom(300 * KIB),
    "sub/deep/c": b"",
    "sub/data-1.csv": b"1",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a few files in it."""
    folder = tmp_path / "source"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def attached(open_cache: OpenCache, source: Path) -> Cache:
    """A cache with that folder attached as ``d`` to be written, and as ``fixed`` to be read."""
    cache = open_cache()
    cache.attach("d", source.as_uri(), writable=True, max_age=0)
    cache.attach("fixed", source.as_uri(), max_age=None)
    return cache


@pytest.fixture
def fs(attached: Cache) -> FileSystem:
    """The file system of one user."""
    return FileSystem(attached, "ann")


def names(fs: FileSystem, path: str) -> list[str]:
    return [status.name for status in fs.list_status(path)]


def error_of(act: Callable[[], object]) -> OSError:
    try:
        act()
    except OSError as error:
        return error
    raise AssertionError("nothing was raised")


def test_files_are_described_with_hadoops_fields(fs: FileSystem, source: Path) -> None:
    status = fs.get_file_status("/d/sub/b.bin")
    changed_ms = (source / "sub/b.bin").stat().st_mtime_ns // 1_000_000
    assert (status.path, status.length, status.is_directory, status.is_file) == (
        "/d/sub/b.bin",
        300 * KIB,
        False,
        True,
    )
    assert (status.modification_time, status.access_time) == (changed_ms, changed_ms)
    assert (status.block_size, status.block_replication) == (BLOCK_BYTES, 1)
    assert (status.permission, status.owner, status.group, status.symlink) == (0o644, "ann", "ann", None)
    assert fs.get_file_status("/fixed/a.bin").permission == 0o444
    directory = fs.get_file_status("webhdfs://host:9870/d//sub/")
    assert (directory.path, directory.length, directory.permission) == ("/d/sub", 0, 0o755)
    assert fs.get_file_status("/").is_directory


def test_listing(fs: FileSystem) -> None:
    assert names(fs, "/") == ["d", "fixed"]
    assert names(fs, "/d") == ["a.bin", "sub"]
    assert names(fs, "/d/sub") == ["b.bin", "data-1.csv", "deep"]
    assert names(fs, "/d/a.bin") == ["a.bin"]
    assert [each.name for each in fs.list_status_iterator("/d/sub", "b.bin")] == ["data-1.csv", "deep"]
    assert [each.name for each in fs.list_status_iterator("/", "d")] == ["fixed"]
    for path in ("/d/none", "/none", "/none/a"):
        assert isinstance(error_of(partial(fs.list_status, path)), FileNotFoundError)
        assert not fs.exists(path)


def test_a_listing_goes_on_behind_any_name(fs: FileSystem, attached: Cache, source: Path) -> None:
    many = source / "many"
    many.mkdir()
    wanted = sorted([f"{number:05d}" for number in range(2_500)] + ["ä", "Z", "\U0001f600", "x" * 255])
    for number, name in enumerate(wanted):
        if number % 10:
            (many / name).touch()
        else:
            (many / name).mkdir()
    for path in ("/d/many", "/fixed/many"):
        found = names(fs, path)
        assert sorted(found) == wanted
        assert found == sorted(found, key=lambda name: name.encode())
        for after in (found[0], found[999], found[1_000], found[-2]):
            rest = [each.name for each in fs.list_status_iterator(path, after)]
            assert rest == found[found.index(after) + 1 :]
        assert list(fs.list_status_iterator(path, found[-1])) == []
        # A name that is not there, or no longer.
        assert [each.name for each in fs.list_status_iterator(path, "00998+")][:2] == ["00999", "01000"]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/d/*", ["/d/a.bin", "/d/sub"]),
        ("/*/a.bin", ["/d/a.bin", "/fixed/a.bin"]),
        ("/d/sub/{b,c}*", ["/d/sub/b.bin"]),
        ("/d/{a.bin,sub/{b.bin,none}}", ["/d/a.bin", "/d/sub/b.bin"]),
        ("/d/sub/data-[0-9].c?v", ["/d/sub/data-1.csv"]),
        ("/d/sub/data-[^1]*", []),
        ("/d/s*/d*", ["/d/sub/data-1.csv", "/d/sub/deep"]),
        ("/d/sub/data\\-1.csv", ["/d/sub/data-1.csv"]),
        ("/d/sub/data[\\-]1.csv", ["/d/sub/data-1.csv"]),
        ("/d/sub/data[+\\-z]1.csv", ["/d/sub/data-1.csv"]),
        ("/d/sub/data[\\+-.]1.csv", ["/d/sub/data-1.csv"]),
        ("/d/sub/data[a\\-z]1.csv", ["/d/sub/data-1.csv"]),
        ("/d/sub/[\\]b].bin", ["/d/sub/b.bin"]),
        ("/d/sub/[!b]*", ["/d/sub/data-1.csv", "/d/sub/deep"]),
        ("/d/[a&&z].bin", ["/d/a.bin"]),
        ("/d/a.bin/*", []),
        ("/d/none", []),
        ("/", ["/"]),
    ],
)
def test_patterns(fs: FileSystem, pattern: str, found: list[str]) -> None:
    assert [status.path for status in fs.glob_status(pattern)] == found


@pytest.mark.parametrize("pattern", ["d/*", "/d/{a", "/d/[a", "/d/a\\", "/d/{a,b/c", "/d/" + "{a,b/c}" * 12])
def test_a_malformed_pattern_is_told(fs: FileSystem, pattern: str) -> None:
    with pytest.raises(ValueError, match="glob"):
        fs.glob_status(pattern)


@pytest.mark.parametrize("path", ["d/a", "", "/d/../a", "/d/./a", "/d/a\0", "s3://d/a"])
def test_a_malformed_path_is_told(fs: FileSystem, path: str) -> None:
    for verb in (fs.open, fs.get_file_status, fs.list_status, fs.exists, fs.mkdirs, fs.delete, fs.create):
        with pytest.raises(ValueError, match="path"):
            verb(path)


def test_streams(fs: FileSystem) -> None:
    data = FILES["sub/b.bin"]
    with fs.open("/d/sub/b.bin") as stream:
        assert stream.read(10) == data[:10]
        buffer = bytearray(100_000)
        stream.read_fully(70_000, buffer)
        assert bytes(buffer) == data[70_000:170_000]
        assert stream.tell() == 10
        assert stream.read_at(len(data) - 5, 10) == data[-5:]
        assert stream.seek(-3, io.SEEK_END) == len(data) - 3
        assert stream.available() == 3
        assert stream.readinto(bytearray(8)) == 3
        assert stream.read() == b""
        stream.seek(0)
        assert stream.read() == data
        for position in (-1, len(data) - 1):
            with pytest.raises(EOFError, match=r"b\.bin"):
                stream.read_fully(position, bytearray(2))
        for position in (-1, len(data) + 1):
            with pytest.raises(EOFError, match="no position"):
                stream.seek(position)
        with pytest.raises(TypeError, match="open it there"):
            pickle.dumps(stream)
    with pytest.raises(ValueError, match="closed"):
        stream.read_fully(0, bytearray(1))
    with io.BufferedReader(fs.open("/d/sub/b.bin")) as buffered:
        assert buffered.read() == data


def test_a_closed_stream_is_closed_in_every_respect(fs: FileSystem) -> None:
    assert not fs.open("/fixed/a.bin").closed
    stream = fs.open("/fixed/a.bin")
    stream.flush()
    with stream as entered:
        assert entered.read() == FILES["a.bin"]
    assert stream.closed
    stream.close()
    for use in (stream.flush, stream.read, stream.readline, stream.tell, stream.__enter__, stream.available):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_a_known_file_is_opened_without_asking(fs: FileSystem, attached: Cache, source: Path) -> None:
    for path in ("/fixed/sub/b.bin", "/fixed/sub", "/fixed/none", "/", "/none/a", "fixed/sub/b.bin"):
        assert fs.open_known(path) is None
    for _ in range(2):
        # The first learns of the file, the second finds what was learnt.
        fs.get_file_status("/fixed/sub/b.bin")
    stream = fs.open_known("/fixed/sub/b.bin")
    assert stream is not None
    with stream:
        assert stream.snapshot.known(0, stream.length) is None
        assert stream.read() == FILES["sub/b.bin"]
        assert stream.snapshot.read(0, 64 * KIB) == stream.snapshot.known(0, 64 * KIB)
        assert stream.snapshot.known(0, 64 * KIB) == memoryview(FILES["sub/b.bin"])[: 64 * KIB]
        assert stream.snapshot.known(0, stream.length + 1) is None
    # Other ways to write a path are for those who may wait, and what may have changed is not known.
    assert fs.open_known("/fixed//sub/b.bin") is None
    fs.get_file_status("/d/sub/b.bin")
    assert fs.open_known("/d/sub/b.bin") is None
    (source / "sub/b.bin").write_bytes(b"another version")
    attached.sync("fixed")
    again = fs.open_known("/fixed/sub/b.bin") or fs.open("/fixed/sub/b.bin")
    with again:
        assert again.read() == b"another version"
    attached.close()
    assert fs.open_known("/fixed/sub/b.bin") is None


def test_a_known_file_is_read_into_any_buffer_that_can_be_written(fs: FileSystem) -> None:
    data = FILES["sub/b.bin"]
    for _ in range(2):
        fs.get_file_status("/fixed/sub/b.bin")
    with fs.open("/fixed/sub/b.bin") as stream:
        # The first reads of an object that is not cached yet, the others of one that is.
        for _ in range(2):
            words = array("H", bytes(len(data) // 2 * 2))
            stream.read_fully(0, words)
            assert words.tobytes() == data[: len(data) // 2 * 2]
            exact, larger, smaller = bytearray(len(data)), bytearray(len(data) + 7), bytearray(10)
            stream.read_fully(0, exact)
            stream.read_fully(0, smaller)
            assert exact == data
            assert smaller == data[:10]
            assert stream.snapshot.readinto(larger) == len(data)
            assert larger[: len(data)] == data
            for behind in (memoryview(larger), array("H", bytes(len(data) // 2 * 2 + 2))):
                with pytest.raises(EOFError, match=f"{memoryview(behind).nbytes} bytes from 0 on"):
                    stream.read_fully(0, behind)
            for wrong in (bytes(len(data)), memoryview(larger)[::2], "text", None):
                with pytest.raises(TypeError):
                    stream.read_fully(0, wrong)
            with pytest.raises(EOFError, match="-1 is negative"):
                stream.read_fully(-1, exact)
            with pytest.raises(ValueError, match="-1 is negative"):
                stream.snapshot.readinto(exact, -1)
            assert stream.snapshot.readinto(exact, 1 << 80) == 0


def test_positioned_reads_of_several_threads(fs: FileSystem) -> None:
    data = FILES["sub/b.bin"]
    wrong: list[int] = []
    with fs.open("/fixed/sub/b.bin") as stream:

        def read(first: int) -> None:
            offsets = range(first, len(data), 4 * 10_007)
            wrong.extend(
                each for each in offsets if stream.read_at(each, 10_007) != data[each : each + 10_007]
            )

        threads = [threading.Thread(target=read, args=(number * 10_007,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_an_open_stream_never_mixes_versions(fs: FileSystem, attached: Cache) -> None:
    with fs.open("/d/sub/b.bin") as stream:
        buffer = bytearray(1_000)
        stream.read_fully(0, buffer)
        attached.put("d/sub/b.bin", b"x" * len(FILES["sub/b.bin"]))
        assert isinstance(error_of(lambda: stream.read_fully(200_000, buffer)), Stale)
    with fs.open("/d/sub/b.bin") as stream:
        assert stream.read_at(0, 3) == b"xxx"


@pytest.mark.parametrize("path", ["/d/none", "/d/sub", "/d", "/", "/none", "/none/a"])
def test_only_files_are_opened(fs: FileSystem, path: str) -> None:
    assert isinstance(error_of(lambda: fs.open(path)), FileNotFoundError)


def test_create_shows_a_file_when_it_is_closed(fs: FileSystem, source: Path) -> None:
    with fs.create("/d/new/deep/file") as stream:
        assert stream.write(b"one") == 3
        assert stream.tell() == 3
        assert not fs.exists("/d/new/deep/file")
    assert (source / "new/deep/file").read_bytes() == b"one"
    with fs.create("/d/new/deep/file") as stream:
        stream.write(b"two")
    assert fs.open("/d/new/deep/file").read() == b"two"
    with suppress(ZeroDivisionError), fs.create("/d/new/deep/file") as stream:
        stream.write(b"three")
        raise ZeroDivisionError
    stream = fs.create("/d/new/deep/file")
    stream.write(b"four")
    stream.abort()
    assert stream.closed
    assert fs.open("/d/new/deep/file").read() == b"two"


def test_what_create_refuses(fs: FileSystem, source: Path) -> None:
    assert isinstance(error_of(lambda: fs.create("/d/a.bin", overwrite=False)), FileExistsError)
    assert isinstance(error_of(lambda: fs.create("/d/sub")), FileExistsError)
    assert isinstance(error_of(lambda: fs.create("/d/a.bin/below")), NotADirectoryError)
    assert isinstance(error_of(lambda: fs.create("/d/a.bin/far/below")), NotADirectoryError)
    assert isinstance(error_of(lambda: fs.create("/none/a")), FileNotFoundError)
    for path in ("/", "/d", "/new"):
        assert isinstance(error_of(partial(fs.create, path)), PermissionError)
    assert error_of(lambda: fs.create("/fixed/new")).errno == errno.EROFS
    stream = fs.create("/d/raced", overwrite=False)
    stream.write(b"mine")
    (source / "raced").write_bytes(b"theirs")
    assert isinstance(error_of(stream.close), FileExistsError)
    assert (source / "raced").read_bytes() == b"theirs"


def test_append_writes_on_at_the_end(fs: FileSystem, source: Path) -> None:
    more = os.urandom(2 * MIB)
    with fs.append("/d/sub/b.bin") as stream:
        assert stream.tell() == 300 * KIB
        stream.write(more)
    assert (source / "sub/b.bin").read_bytes() == FILES["sub/b.bin"] + more
    with fs.append("/d/sub/b.bin") as stream:
        stream.write(b"end")
    assert fs.open("/d/sub/b.bin").read() == FILES["sub/b.bin"] + more + b"end"
    for path in ("/d/none", "/d/sub", "/none/a"):
        assert isinstance(error_of(partial(fs.append, path)), FileNotFoundError)
    assert error_of(lambda: fs.append("/fixed/a.bin")).errno == errno.EROFS


def test_of_two_that_append_neither_is_lost_silently(fs: FileSystem, source: Path) -> None:
    one, other = fs.append("/d/a.bin"), fs.append("/d/a.bin")
    one.write(b"1")
    other.write(b"2")
    one.close()
    assert isinstance(error_of(other.close), Stale)
    assert (source / "a.bin").read_bytes() == FILES["a.bin"] + b"1"
    with suppress(ZeroDivisionError), fs.append("/d/a.bin") as stream:
        stream.write(b"3")
        raise ZeroDivisionError
    gone = fs.append("/d/a.bin")
    (source / "a.bin").unlink()
    assert isinstance(error_of(gone.close), Stale)
    assert not (source / "a.bin").exists()


def test_a_storage_that_fails_is_not_taken_for_one_that_creates_nothing_exclusively(
    fs: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, mode: str) -> None:
        assert mode == "xb"
        raise under_storage_error(path, "does not answer")

    monkeypatch.setattr(fs.cache, "open", fail)
    assert error_of(lambda: fs.create("/d/new", overwrite=False)).errno == errno.EIO


def test_mkdirs(fs: FileSystem, source: Path) -> None:
    assert fs.mkdirs("/d/x/y/z")
    assert fs.mkdirs("/d/x/y")
    assert fs.mkdirs("/d")
    assert (source / "x/y/z").is_dir()
    assert isinstance(error_of(lambda: fs.mkdirs("/d/a.bin")), FileExistsError)
    assert isinstance(error_of(lambda: fs.mkdirs("/d/a.bin/x")), NotADirectoryError)
    assert isinstance(error_of(lambda: fs.mkdirs("/new")), PermissionError)


def test_delete(fs: FileSystem, source: Path) -> None:
    assert fs.delete("/d/a.bin")
    assert not fs.delete("/d/a.bin")
    assert error_of(lambda: fs.delete("/d/sub")).errno == errno.ENOTEMPTY
    assert fs.delete("/d/sub", recursive=True)
    assert not (source / "sub").exists()
    for path in ("/", "/d"):
        assert isinstance(error_of(partial(fs.delete, path, recursive=True)), PermissionError)


def test_rename(fs: FileSystem, source: Path) -> None:
    assert fs.rename("/d/a.bin", "/d/sub")
    assert (source / "sub/a.bin").read_bytes() == FILES["a.bin"]
    assert fs.rename("/d/sub/a.bin", "/d/sub/other")
    assert not fs.rename("/d/sub/none", "/d/x")
    assert not fs.rename("/d/sub/other", "/d/sub/b.bin")
    assert not fs.rename("/d/sub/other", "/d/absent/x")
    assert not fs.rename("/d/sub", "/d/sub/deep/x")
    assert not fs.rename("/d/sub", "/d/sub")
    assert fs.rename("/d/sub/other", "/d/sub/other")
    assert fs.rename("/d/sub", "/d/moved")
    assert sorted(os.listdir(source / "moved")) == ["b.bin", "data-1.csv", "deep", "other"]
    assert error_of(lambda: fs.rename("/d/moved/other", "/fixed/x")).errno == errno.EXDEV
    for one, other in (("/d", "/e"), ("/d/moved/other", "/e")):
        assert isinstance(error_of(partial(fs.rename, one, other)), PermissionError)


def test_summary_and_summed_bytes(fs: FileSystem) -> None:
    length = sum(map(len, FILES.values()))
    assert fs.get_content_summary("/d") == ContentSummary(length, len(FILES), 3, length)
    assert fs.get_content_summary("/d/a.bin") == ContentSummary(10, 1, 0, 10)
    assert fs.get_content_summary("/").file_count == 2 * len(FILES)


def test_replication(fs: FileSystem) -> None:
    assert fs.set_replication("/d/sub/b.bin", 2)
    assert fs.get_file_status("/d/sub/b.bin").block_replication == 2
    assert [each.block_replication for each in fs.list_status("/d/sub")] == [2, 1, 0]
    assert fs.get_content_summary("/d/sub").space_consumed == 2 * 300 * KIB + 1
    assert not fs.set_replication("/d/sub", 2)
    with pytest.raises(ValueError, match="less than 1"):
        fs.set_replication("/d/a.bin", 0)
    assert isinstance(error_of(lambda: fs.set_replication("/d/none", 2)), FileNotFoundError)


def test_what_is_refused(fs: FileSystem) -> None:
    for act, words in (
        (lambda: fs.concat("/d/a.bin", ["/d/b"]), "concat"),
        (lambda: fs.truncate("/d/a.bin", 0), "truncate"),
        (lambda: fs.set_times("/d/a.bin", 1, 1), "setTimes"),
        (lambda: fs.set_permission("/d/a.bin", 0o600), "setPermission"),
        (lambda: fs.set_owner("/d/a.bin", "bob"), "setOwner"),
        (lambda: fs.create("/d/x").hflush(), "hflush"),
        (lambda: fs.create("/d/x").hsync(), "hsync"),
    ):
        with pytest.raises(io.UnsupportedOperation, match=words):
            act()
    fs.set_times("/d/a.bin")


def test_access(fs: FileSystem) -> None:
    fs.access("/d/a.bin", "rw-")
    fs.access("/d", "rwx")
    for path, mode in (("/fixed/a.bin", "w"), ("/d/a.bin", "x"), ("/", "w")):
        with pytest.raises(PermissionError):
            fs.access(path, mode)
    with pytest.raises(ValueError, match="mode"):
        fs.access("/d/a.bin", "q")


def test_where_things_are(fs: FileSystem) -> None:
    here = socket.gethostname()
    assert fs.get_file_block_locations("/d/a.bin") == [BlockLocation(0, 10, (here,), (here,))]
    assert fs.get_file_block_locations("/d/a.bin", 4, 3) == [BlockLocation(4, 3, (here,), (here,))]
    assert fs.get_file_block_locations("/d/a.bin", 10) == []
    assert fs.get_file_block_locations("/d/sub") == []
    with pytest.raises(ValueError, match="0 or more"):
        fs.get_file_block_locations("/d/a.bin", -1)
    assert fs.get_home_directory() == "/user/ann"
    assert fs.get_trash_root("/d/a") == "/user/ann/.Trash"
    assert fs.get_server_defaults().block_size == BLOCK_BYTES


def test_owners_of_a_group_are_told_by_pieces(open_cache: OpenCache, tmp_path: Path) -> None:
    class Group(NoRemote):
        def holders(self, dataset: str, path: str, offset: int, replicas: int = 1) -> list[Holder]:
            assert (dataset, path) == ("d", "large")
            number = offset // BLOCK_BYTES
            return [Holder(f"host{number}:7070", f"host{number}:9870"), Holder("[::1]:7070", "")]

    (tmp_path / "source").mkdir()
    with open(tmp_path / "source/large", "wb") as file:
        file.truncate(BLOCK_BYTES + 5)
    cache = open_cache(remote=Group())
    cache.attach("d", (tmp_path / "source").as_uri(), max_age=None)
    first, second = FileSystem(cache).get_file_block_locations("/d/large", BLOCK_BYTES - 1, 100)
    assert first == BlockLocation(
        BLOCK_BYTES - 1, 1, ("host0", "[::1]"), ("host0:7070", "[::1]:7070"), ("host0:9870",)
    )
    assert (second.offset, second.length, second.hosts[0]) == (BLOCK_BYTES, 5, "host1")
    assert second.topology_paths == ("/default-rack/host1:7070", "/default-rack/[::1]:7070")


def test_a_store_without_exclusive_creation_is_looked_at_first(open_cache: OpenCache) -> None:
    cache = open_cache()
    MemoryFileSystem().pipe_file("/hdfs-create/b", b"2")
    cache.attach("m", "memory://hdfs-create", writable=True, max_age=0)
    fs = FileSystem(cache)
    with fs.create("/m/a", overwrite=False) as stream:
        stream.write(b"1")
    assert isinstance(error_of(lambda: fs.create("/m/a", overwrite=False)), FileExistsError)
    assert fs.open("/m/a").read() == b"1"
