"""One suite for every under storage that can be written: the other half of test_ufs.py.

A new driver is a subclass of WritingSuite with a `place` fixture of its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from forebay.config import MIB
from forebay.errors import NotFound, UnderStorageError
from forebay.testing.s3 import S3Server
from forebay.ufs import _fsspec_writer, open_storage
from forebay.ufs._s3_endpoint import endpoint_of
from forebay.ufs.payload import BytesPayload
from tests._job import Job, Watched
from tests._moto import begin_anew
from tests._s3 import give_keys
from tests.conformance._place import AsyncMemory, Place

PART = 8 * MIB


class WritingSuite:
    def test_what_is_written_is_there(self, place: Place) -> None:
        info = place.write("a/b/c.bin", b"12345").info
        assert (info.path, info.size, info.is_dir) == ("a/b/c.bin", 5, False)
        found = place.storage.stat("a/b/c.bin")
        assert (found.version, found.size) == (info.version, info.size)
        assert abs(found.mtime_ns - info.mtime_ns) < 5e9
        assert place.storage.stat("a/b").is_dir
        assert list(place.names("a/b")) == ["a/b/c.bin"]

    def test_what_is_there_is_replaced(self, place: Place) -> None:
        first = place.write("a", b"old bytes").info
        second = place.write("a", b"new").info
        assert first.version != second.version
        # By now answers to writes are believed, if this storage's ever are.
        assert place.storage.stat("a").version == second.version

    @pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART + 5])
    def test_sizes(self, place: Place, size: int) -> None:
        info = place.write(f"sizes/{size}", os.urandom(size)).info
        assert (info.size, info.version) == (size, place.storage.stat(f"sizes/{size}").version)

    @pytest.mark.parametrize("name", ["ü ä.txt", "a+b%20c&d=e?f#g", "quote'\"<>", "x" * 200])
    def test_odd_names_are_written(self, place: Place, name: str) -> None:
        place.write(f"odd/{name}", b"odd")
        assert place.names("odd").keys() == {f"odd/{name}"}
        place.writer.rename(f"odd/{name}", f"odder/{name}", Job())
        assert place.read(f"odder/{name}", 0, 10) == b"odd"
        place.writer.delete(f"odder/{name}")

    @pytest.mark.parametrize("size", [1_000, 2 * PART])
    def test_a_payload_that_cannot_be_read_changes_nothing(self, place: Place, size: int) -> None:
        def fail(offset: int) -> None:
            # The first part may come through.
            if offset >= PART or size < PART or is_one_call:
                raise OSError(errno.EIO, "on purpose", "payload")

        is_one_call = place.is_one_call

        place.write("d/a", b"old")
        job = Job()
        with pytest.raises(OSError, match="on purpose"):
            place.writer.put("d/a", Watched(bytes(size), fail), job)
        with pytest.raises(OSError, match="on purpose"):
            place.writer.put("d/b", Watched(bytes(size), fail), job)
        assert (place.read("d/a", 0, 10), list(place.names("d"))) == (b"old", ["d/a"])
        assert not job.is_left

    @pytest.mark.parametrize("size", [1_000, 2 * PART])
    def test_nothing_is_seen_of_what_is_being_written(self, place: Place, size: int) -> None:
        place.write("d/a", b"old")
        seen: list[tuple[bytes, list[str], int]] = []

        def look(offset: int) -> None:
            walked = sum(len(page) for page in place.storage.walk(""))
            seen.append((place.read("d/a", 0, 10), list(place.names("d")), walked))

        place.writer.put("d/a", Watched(bytes(size), look), Job())
        assert set(map(repr, seen)) == {repr((b"old", ["d/a"], 1))}
        assert place.storage.stat("d/a").size == size

    def test_objects_are_deleted(self, place: Place) -> None:
        place.write("d/a", b"1")
        place.write("d/b", b"2")
        place.writer.delete("d/a")
        assert list(place.names("d")) == ["d/b"]
        for absent in ("d/a", "d/c", "nothing/here"):
            with pytest.raises(NotFound):
                place.writer.delete(absent)

    def test_a_directory_is_deleted_when_it_is_empty(self, place: Place) -> None:
        place.write("d/e/a", b"1")
        for directory in ("d", "d/e"):
            with pytest.raises(UnderStorageError) as caught:
                place.writer.delete(directory)
            assert caught.value.errno == errno.ENOTEMPTY
        assert place.read("d/e/a", 0, 1) == b"1"

    def test_objects_are_renamed(self, place: Place) -> None:
        place.write("d/a", b"of a")
        place.write("d/b", b"of b")
        info = place.writer.rename("d/a", "new/dir/a", Job())
        assert (info.path, info.version) == ("new/dir/a", place.storage.stat("new/dir/a").version)
        assert (place.read("new/dir/a", 0, 10), list(place.names("d"))) == (b"of a", ["d/b"])
        place.writer.rename("new/dir/a", "d/b", Job())
        assert place.read("d/b", 0, 10) == b"of a"
        with pytest.raises(NotFound):
            place.writer.rename("d/a", "d/c", Job())

    def test_a_directory_is_renamed_at_once_or_refused(self, place: Place) -> None:
        place.write("d/e/a", b"1")
        try:
            info = place.writer.rename("d", "new", Job())
        except IsADirectoryError:
            assert place.read("d/e/a", 0, 1) == b"1"
        else:
            assert (info.is_dir, place.read("new/e/a", 0, 1)) == (True, b"1")
            with pytest.raises(NotFound):
                place.storage.stat("d")

    def test_directories_are_made_or_refused(self, place: Place) -> None:
        place.write("a", b"1")
        refused: UnderStorageError | None = None
        try:
            place.writer.mkdir("d/e")
        except UnderStorageError as error:
            refused = error
        if refused is not None:
            assert (refused.errno, list(place.names(""))) == (errno.EOPNOTSUPP, ["a"])
            return
        assert {path: info.is_dir for path, info in place.names("").items()} == {"a": False, "d": True}
        assert list(place.names("d")) == ["d/e"]
        assert place.names("d/e") == {}
        place.writer.mkdir("d/e")
        with pytest.raises(FileExistsError):
            place.writer.mkdir("a")
        place.writer.delete("d/e")
        with pytest.raises(NotFound):
            place.storage.stat("d/e")

    @pytest.mark.parametrize("size", [0, 100, PART + 1])
    def test_exclusive_is_honest(self, place: Place, size: int) -> None:
        place.write("there", b"of another")
        before = set(place.names(""))
        bytes_max = place.exclusive_bytes_max("new/a")
        assert set(place.names("")) == before
        if bytes_max == 0:
            return
        assert size <= bytes_max
        place.write("new/a", bytes(size), exclusive=True)
        for taken in ("new/a", "there"):
            with pytest.raises(FileExistsError):
                place.write(taken, bytes(size + 1), exclusive=True)
        assert (place.storage.stat("new/a").size, place.read("there", 0, 20)) == (size, b"of another")
        place.writer.delete("new/a")
        place.write("new/a", b"again", exclusive=True)

    def test_a_name_that_is_not_utf_8_is_refused_or_written(self, place: Place) -> None:
        for change in (
            lambda: place.write("\udcff", b"1"),
            lambda: place.writer.rename("\udcff", "a\udcff", Job()),
            lambda: place.writer.delete("a\udcff"),
        ):
            self.refused_or_done(change)

    def refused_or_done(self, change: Callable[[], object]) -> None:
        with pytest.raises((NotFound, UnderStorageError)):
            change()

    def test_a_missing_root_is_not_made(self, place: Place) -> None:
        """A mount that is missing must not be written below."""
        writer = place.missing_root.writer()
        assert writer is not None
        for change in (
            lambda: writer.put("d/a", BytesPayload(b"1"), Job()),
            lambda: writer.put("a", BytesPayload(bytes(PART + 1)), Job()),
            lambda: writer.mkdir("d"),
            lambda: writer.delete("d"),
            lambda: writer.rename("d", "e", Job()),
        ):
            with pytest.raises(UnderStorageError) as caught:
                change()
            assert not isinstance(caught.value, NotFound)


class TestFile(WritingSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        folder = tmp_path / "root"
        folder.mkdir()
        return Place(
            open_storage(folder.as_uri(), {}), folder, open_storage((tmp_path / "gone").as_uri(), {})
        )

    def refused_or_done(self, change: Callable[[], object]) -> None:
        """File names are bytes."""
        change()


class TestFsspecMemory(WritingSuite):
    @pytest.fixture
    def place(self, tmp_path: Path, scheme: str) -> Iterator[Place]:
        memory = fsspec.filesystem("memory")
        memory.makedirs("/root")
        storage = open_storage(f"{scheme}://root", {})
        missing = open_storage(f"{scheme}://gone", {"attempts": 1})
        yield Place(storage, tmp_path, missing, is_one_call=True)
        memory.rm("/root", recursive=True)

    @pytest.fixture
    def scheme(self) -> str:
        return "memory"

    def test_a_missing_root_is_not_made(self, place: Place) -> None:
        """It is: there are no roots in memory."""


class TestFsspecAsync(TestFsspecMemory):
    @pytest.fixture
    def scheme(self, monkeypatch: pytest.MonkeyPatch) -> str:
        fsspec.register_implementation("asyncmemory", AsyncMemory, clobber=True)
        for table in ("_WHOLE", "_COPYING"):
            monkeypatch.setattr(_fsspec_writer, table, frozenset({"asyncmemory"}))
        return "asyncmemory"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Path]]:
    """A real server, which nobody writes behind: only then does it take many changes at a time."""
    root = tmp_path_factory.mktemp("buckets")
    (root / "bucket").mkdir()
    with S3Server(root) as server:
        yield server, root


class TestS3(WritingSuite):
    @pytest.fixture
    def place(
        self, server: tuple[S3Server, Path], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> Iterator[Place]:
        running, root = server
        for name, value in running.environ().items():
            monkeypatch.setenv(name, value)
        options = {"endpoint_url": running.endpoint_url}
        endpoint_of(running.endpoint_url).learn_ranges(200)
        prefix = f"pre/{abs(hash(request.node.name))}"
        storage = open_storage(f"s3://bucket/{prefix}", options)
        missing = open_storage("s3://no-such-bucket", options)
        yield Place(storage, root / "bucket" / prefix, missing)
        storage.close()
        missing.close()


class TestS3Moto(WritingSuite):
    """A server that honours If-None-Match, and tells versions of uploads in parts as AWS does."""

    @pytest.fixture
    def place(self, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        give_keys(monkeypatch)
        begin_anew()
        storage = open_storage("s3://bucket/pre", {"endpoint_url": moto})
        missing = open_storage("s3://no-such-bucket", {"endpoint_url": moto})
        yield Place(storage, tmp_path, missing)
        storage.close()
        missing.close()


@pytest.mark.parametrize("uri", ["http://host/folder", "ftp://host/folder", "github://"])
def test_what_cannot_be_written_says_so(uri: str) -> None:
    assert open_storage(uri, {}).writer() is None
