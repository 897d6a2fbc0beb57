"""One suite for every under storage.

A new driver is a subclass of Suite with a `place` fixture of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from forebay.config import MIB
from forebay.errors import NotFound, Stale, UnderStorageError
from forebay.testing.s3 import S3Server
from forebay.ufs import open_storage
from forebay.ufs._s3_endpoint import endpoint_of
from tests._moto import begin_anew, put_into_moto
from tests._s3 import give_keys
from tests._web import WebServer
from tests.conformance._place import AsyncMemory, MemoryPlace, Place

# Long enough that one range is read in several pieces, and no multiple of anything.
BIG = os.urandom(3 * MIB + 17)


class Suite:
    def test_stat_gives_size_version_and_time(self, place: Place) -> None:
        place.put("a/b.bin", b"12345")
        info = place.storage.stat("a/b.bin")
        assert (info.path, info.size, info.is_dir) == ("a/b.bin", 5, False)
        assert info.version
        assert abs(info.mtime_ns - (place.folder / "a/b.bin").stat().st_mtime_ns) < 2e9

    def test_stat_of_a_directory(self, place: Place) -> None:
        place.put("a/b/c.bin", b"1")
        for path in ("", "a", "a/b"):
            info = place.storage.stat(path)
            assert (info.path, info.is_dir, info.size, info.version) == (path, True, 0, "")

    def test_stat_of_nothing(self, place: Place) -> None:
        with pytest.raises(NotFound, match="nothing/here"):
            place.storage.stat("nothing/here")

    def test_a_version_changes_with_the_bytes(self, place: Place) -> None:
        place.put("a", b"old!")
        old = place.storage.stat("a").version
        assert place.storage.stat("a").version == old
        place.put("a", b"new!")
        assert place.storage.stat("a").version != old

    def test_stat_and_list_and_read_agree(self, place: Place) -> None:
        place.put("d/x", b"123")
        with place.storage.read_range("d/x", 0, 10) as body:
            assert body.info == place.storage.stat("d/x") == place.names("d")["d/x"]

    def test_list_shows_one_level(self, place: Place) -> None:
        for path in ("top", "d/one", "d/two", "d/e/three"):
            place.put(path, path.encode())
        assert {path: info.is_dir for path, info in place.names("").items()} == {"top": False, "d": True}
        listed = place.names("d")
        assert {path: info.is_dir for path, info in listed.items()} == {
            "d/one": False,
            "d/two": False,
            "d/e": True,
        }
        assert listed["d/one"].size == len("d/one")

    def test_list_of_many_comes_in_pages(self, place: Place) -> None:
        for number in range(2_345):
            place.put(f"many/{number:05}", b"")
        pages = list(place.storage.list("many"))
        assert len(pages) >= 3
        assert {info.path for page in pages for info in page} == {
            f"many/{number:05}" for number in range(2_345)
        }

    def test_walk_shows_every_object_below(self, place: Place) -> None:
        paths = {"top", "d/one", "d/e/three", "d/e/f/g/four", "e/five"}
        for path in paths:
            place.put(path, path.encode())
        for below, expected in (("", paths), ("d/e", {"d/e/three", "d/e/f/g/four"})):
            for workers in (1, 8):
                found = [info for page in place.storage.walk(below, workers) for info in page]
                assert sorted(info.path for info in found) == sorted(expected)
                assert all(info == place.storage.stat(info.path) for info in found)

    def test_walk_of_nothing(self, place: Place) -> None:
        place.put("a/b", b"1")
        with pytest.raises(NotFound, match="a/c"):
            list(place.storage.walk("a/c"))

    def test_list_of_nothing(self, place: Place) -> None:
        place.put("a/b", b"1")
        with pytest.raises(NotFound, match="a/c"):
            list(place.storage.list("a/c"))

    @pytest.mark.parametrize("name", ["ü ä.txt", "a+b%20c&d=e?f#g", "quote'\"<>", "x" * 200])
    def test_odd_names(self, place: Place, name: str) -> None:
        place.put(f"odd/{name}", b"odd")
        assert place.names("odd").keys() == {f"odd/{name}"}
        assert place.storage.stat(f"odd/{name}").size == 3
        assert place.read(f"odd/{name}", 0, 10) == b"odd"

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 1), (0, len(BIG)), (MIB - 1, 2 * MIB + 1), (len(BIG) - 1, 1), (len(BIG) - 5, 100), (0, 1 << 42)],
    )
    def test_ranges(self, place: Place, offset: int, length: int) -> None:
        place.put("big", BIG)
        assert place.read("big", offset, length) == BIG[offset : offset + length]

    @pytest.mark.parametrize(("size", "offset"), [(0, 0), (0, 5), (3, 3), (3, 1000)])
    def test_a_range_behind_the_end_is_empty(self, place: Place, size: int, offset: int) -> None:
        place.put("small", b"x" * size)
        with place.storage.read_range("small", offset, 10) as body:
            assert (body.length, body.info.size) == (0, size)

    def test_a_range_is_read_in_parts_by_any_of_the_three_ways(self, place: Place) -> None:
        place.put("a", BIG)
        signs: list[int] = []
        with place.storage.read_range("a", 5, len(BIG)) as body:
            buffer = bytearray(300_000)
            body.readinto(memoryview(buffer), lambda: signs.append(1))
            taken = body.take(1_000_001, lambda: signs.append(2))
            pieces = [bytes(piece) for piece in body.pieces(700_000, lambda: signs.append(3))]
            rest = body.take(body.length - 300_000 - 1_000_001 - 700_000)
            assert bytes(body.take(0)) == b""
            assert b"".join([buffer, taken, *pieces, rest]) == BIG[5:]
        assert set(signs) >= {1}
        assert signs == sorted(signs)

    def test_a_version_is_held_to(self, place: Place) -> None:
        place.put("a", b"old bytes")
        version = place.storage.stat("a").version
        assert place.read("a", 0, 9, version) == b"old bytes"
        place.put("a", b"new bytes")
        with pytest.raises(Stale, match="a'"):
            place.read("a", 0, 9, version)
        with pytest.raises(Stale):
            place.storage.read_range("a", 1_000, 9, version)

    def test_reading_nothing(self, place: Place) -> None:
        with pytest.raises(NotFound, match="nothing/here"):
            place.storage.read_range("nothing/here", 0, 10)

    def test_a_missing_root_is_not_a_missing_file(self, place: Place) -> None:
        """A bucket or folder that is gone says nothing about the files in it."""
        for attempt in (
            lambda: place.missing_root.stat("a"),
            lambda: place.missing_root.read_range("a", 0, 1),
            lambda: list(place.missing_root.list("d")),
        ):
            with pytest.raises(UnderStorageError):
                attempt()

    def test_a_name_that_is_not_utf_8_is_absent_or_there(self, place: Place) -> None:
        with pytest.raises(NotFound):
            place.storage.stat("\udcff")
        with pytest.raises(NotFound):
            place.storage.read_range("d/\udcff", 0, 1)

    def test_closing_twice(self, place: Place) -> None:
        place.put("a", b"1")
        body = place.storage.read_range("a", 0, 1)
        body.close()
        body.close()
        place.storage.close()
        place.storage.close()


class TestFsspecMemory(Suite):
    @pytest.fixture
    def place(self, tmp_path: Path, scheme: str) -> Iterator[Place]:
        memory = fsspec.filesystem("memory")
        memory.makedirs("/root")
        storage = open_storage(f"{scheme}://root", {})
        missing = open_storage(f"{scheme}://gone", {"attempts": 1})
        yield MemoryPlace(storage, tmp_path, missing)
        memory.rm("/root", recursive=True)

    @pytest.fixture
    def scheme(self) -> str:
        return "memory"


class TestFsspecAsync(TestFsspecMemory):
    @pytest.fixture
    def scheme(self) -> str:
        fsspec.register_implementation("asyncmemory", AsyncMemory, clobber=True)
        return "asyncmemory"


class TestFsspecHttp(Suite):
    """fsspec's http:// on a server that knows ranges and ETags; an absent root is an absent server."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        folder = tmp_path / "root"
        folder.mkdir()
        with WebServer(tmp_path) as gone:
            missing = open_storage(f"{gone.url}/root", {"attempts": 1})
        with WebServer(tmp_path) as web:
            storage = open_storage(f"{web.url}/root", {})
            yield Place(storage, folder, missing)
            storage.close()
            missing.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[S3Server, Path]]:
    root = tmp_path_factory.mktemp("buckets")
    with S3Server(root, live=True) as server:
        yield server, root


class TestFile(Suite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        folder = tmp_path / "root"
        folder.mkdir()
        return Place(
            open_storage(folder.as_uri(), {}), folder, open_storage((tmp_path / "gone").as_uri(), {})
        )

    @pytest.mark.parametrize("raw_name", [b"new\nline", b"\x1b[31m", b"not utf-8 \xff"])
    def test_names_that_only_a_file_system_has(self, place: Place, raw_name: bytes) -> None:
        self.test_odd_names(place, os.fsdecode(raw_name))

    def test_what_is_no_file_is_neither_shown_nor_waited_for(self, place: Place) -> None:
        os.mkfifo(place.folder / "pipe")
        (place.folder / "broken").symlink_to("nowhere")
        assert place.names("") == {}
        for attempt in (lambda: place.storage.stat("pipe"), lambda: place.storage.read_range("pipe", 0, 1)):
            with pytest.raises(UnderStorageError, match="regular file"):
                attempt()

    def test_a_directory_is_not_read(self, place: Place) -> None:
        (place.folder / "d").mkdir()
        with pytest.raises(IsADirectoryError, match="d'"):
            place.storage.read_range("d", 0, 1)

    def test_a_file_changed_while_it_is_read_is_stale(self, place: Place) -> None:
        place.put("a", b"x" * 100)
        with place.storage.read_range("a", 0, 100) as body:
            (place.folder / "a").write_bytes(b"y" * 50)
            with pytest.raises(Stale):
                body.readinto(memoryview(bytearray(100)))


class TestS3(Suite):
    """By obstore where it can, as if a first range had told how this server answers them."""

    @pytest.fixture
    def place(
        self, server: tuple[S3Server, Path], monkeypatch: pytest.MonkeyPatch, prefix: str, client: str
    ) -> Iterator[Place]:
        running, root = server
        for name, value in running.environ().items():
            monkeypatch.setenv(name, value)
        options = {"endpoint_url": running.endpoint_url, "client": client}
        endpoint_of(running.endpoint_url).learn_ranges(200)
        folder = root / "bucket" / prefix
        folder.mkdir(parents=True)
        storage = open_storage(f"s3://bucket/{prefix}", options)
        missing = open_storage("s3://no-such-bucket", options)
        yield Place(storage, folder, missing)
        storage.close()
        missing.close()
        shutil.rmtree(root / "bucket")

    @pytest.fixture
    def prefix(self) -> str:
        return "pre/fix"

    @pytest.fixture
    def client(self) -> str:
        return "auto"


class TestS3WholeBucket(TestS3):
    @pytest.fixture
    def prefix(self) -> str:
        return ""


class TestS3Boto3(TestS3):
    """By boto3 alone."""

    @pytest.fixture
    def client(self) -> str:
        return "boto3"


class MotoPlace(Place):
    """moto's S3: what is put into the folder, for the suite to look at, is put there too."""

    def put(self, path: str, data: bytes) -> None:
        super().put(path, data)
        put_into_moto(f"pre/{path}", data)


class TestS3Moto(Suite):
    """By obstore's own ranges, from a server that answers them with 206 and looks at If-Match."""

    @pytest.fixture
    def place(self, moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
        give_keys(monkeypatch)
        begin_anew()
        put_into_moto("pre/", b"")
        storage = open_storage("s3://bucket/pre", {"endpoint_url": moto})
        missing = open_storage("s3://no-such-bucket", {"endpoint_url": moto})
        yield MotoPlace(storage, tmp_path, missing)
        storage.close()
        missing.close()
