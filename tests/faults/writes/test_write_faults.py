"""Writes when disks are full, servers go away in the middle, and processes want the same new object."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.errors import Stale, UnderStorageError
from forebay.testing.s3 import S3Server
from forebay.testing.tier import FaultyTier
from tests._s3 import Handler, give_keys
from tests._s3_writes import WritableHandler, WritableS3
from tests.faults._child import Child, wait_until
from tests.faults._write_moments import OpenCache, Source, left_on_disk

DISK_BYTES = 24 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FaultyTier]:
    """A file system of 24 MiB."""
    with FaultyTier(tmp_path / "disk", DISK_BYTES, inode_count=64) as tier:
        yield tier


def staged_files(disk: FaultyTier) -> list[Path]:
    return list(disk.path.glob("staging/*.staged"))


def test_a_disk_that_is_full_while_it_is_staged_on(
    tmp_path: Path, memory_path: Path, disk: FaultyTier
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a").write_bytes(b"old")
    with Cache(
        tmp_path / "cache",
        [Tier(str(memory_path), 64 * MIB, "MEM")],
        block_bytes=64 * KIB,
        staging_dir=disk.path / "staging",
    ) as cache:
        cache.attach("d", (tmp_path / "source").as_uri(), writable=True, max_age=None)
        piece = bytes(3 * MIB)
        with pytest.raises(OSError, match="No space left") as caught, cache.open("d/a", "wb") as file:
            file.writelines([piece] * 20)
        assert (caught.value.errno, file.closed) == (errno.ENOSPC, True)
        assert str(disk.path) in str(caught.value.filename)
        assert (staged_files(disk), left_on_disk(tmp_path)) == ([], left_on_disk(tmp_path)[:1])
        # Whoever does not heed the error has not written either.
        file = cache.open("d/a", "wb")
        with pytest.raises(OSError, match="No space left"):
            file.writelines([piece] * 20)
        with pytest.raises(OSError, match="No space left"):
            file.close()
        assert bytes(cache.read("d/a")) == b"old"
        assert (staged_files(disk), cache.status()["staging"]["bytes"]) == ([], 0)
        with cache.open("d/a", "wb") as file:
            file.write(piece)
        assert cache.stat("d/a").size == len(piece)
    assert left_on_disk(tmp_path) == []


def test_a_source_that_is_full(tmp_path: Path, disk: FaultyTier, open_cache: OpenCache) -> None:
    folder = disk.path / "source"
    folder.mkdir()
    (folder / "a").write_bytes(b"old")
    with open_cache() as cache:
        cache.attach("d", folder.as_uri(), writable=True, max_age=None)
        with pytest.raises(UnderStorageError, match="No space left") as caught:
            cache.put("d/a", bytes(DISK_BYTES))
        assert caught.value.errno == errno.ENOSPC
        assert ([path.name for path in folder.iterdir()], bytes(cache.read("d/a"))) == (["a"], b"old")
        cache.put("d/a", b"new")
        assert bytes(cache.read("d/a")) == b"new"


def test_a_source_that_is_gone(tmp_path: Path, open_cache: OpenCache) -> None:
    (tmp_path / "buckets/bucket").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch, open_cache() as cache:
        with S3Server(tmp_path / "buckets") as server:
            for name, value in server.environ().items():
                patch.setenv(name, value)
            url = server.endpoint_url
            cache.attach("d", "s3://bucket", endpoint_url=url, attempts=2, writable=True, max_age=None)
            cache.put("d/a", b"old")
            cache.read("d/a").release()
            file = cache.open("d/a", "wb")
            file.write(bytes(9 * MIB))
        for attempt in (lambda: cache.put("d/a", b"1"), lambda: cache.delete("d/a"), file.close):
            with pytest.raises(UnderStorageError, match="bucket/a"):
                attempt()
        assert cache.status()["staging"]["bytes"] == 0
        assert (tmp_path / "buckets/bucket/a").read_bytes() == b"old"
    assert left_on_disk(tmp_path) == []


def test_a_source_that_goes_in_the_middle_of_an_upload_and_comes_back(
    tmp_path: Path, open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_keys(monkeypatch)

    def drop(handler: Handler) -> bool:
        """Answer nothing more from the second part on: neither that nor the abort."""
        assert isinstance(handler, WritableHandler)
        if "partNumber=2" not in handler.path and not is_gone.is_set():
            return False
        is_gone.set()
        handler.drop()
        return True

    is_gone = threading.Event()
    data = bytes(17 * MIB)
    with WritableS3() as server:
        with open_cache() as cache:
            options: dict[str, Any] = {"endpoint_url": server.url, "attempts": 2, "client": "boto3"}
            cache.attach("d", "s3://bucket/p", writable=True, max_age=None, **options)
            cache.put("d/a", b"old")
            server.interfere = drop
            for attempt in (lambda: cache.put("d/a", data), lambda: write_by_a_file(cache, "d/a", data)):
                with pytest.raises(UnderStorageError, match="p/a"):
                    attempt()
                is_gone.clear()
            assert (len(server.uploads), server.objects) == (2, {"p/a": b"old"})
            assert cache.status()["staging"]["bytes"] == 0
        assert len(left_on_disk(tmp_path)) == 2
        server.interfere = None
        with open_cache() as cache:
            wait_until(lambda: left_on_disk(tmp_path) == [], "the uploads are aborted")
            assert (server.uploads, bytes(cache.read("d/a"))) == ({}, b"old")
            cache.put("d/a", data)
            assert (server.objects["p/a"], server.uploads) == (data, {})


def write_by_a_file(cache: Cache, path: str, data: bytes) -> None:
    with cache.open(path, "wb") as file:
        file.write(data)


def test_a_folder_that_is_not_mounted_is_not_made(tmp_path: Path, open_cache: OpenCache) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    with open_cache() as cache:
        cache.attach("d", folder.as_uri(), writable=True)
        folder.rmdir()
        for attempt in (lambda: cache.put("d/dir/a", b"1"), lambda: cache.mkdir("d/dir")):
            with pytest.raises(UnderStorageError, match="is not there"):
                attempt()
    assert not folder.exists()


def test_one_of_two_processes_creates_it(open_cache: OpenCache, source: Source) -> None:
    paths = [f"d/dir/{number}" for number in range(20)]

    def create(link: Connection, text: bytes) -> list[str]:
        won = []
        with open_cache() as cache:
            link.send("open")
            link.recv()
            for path in paths:
                try:
                    cache.put(path, text, exclusive=True)
                except FileExistsError:
                    continue
                won.append(path)
        return won

    with open_cache() as cache:
        cache.attach("d", source.uri, writable=True, max_age=None, **source.options)
        with Child(create, b"one") as one, Child(create, b"two") as two:
            assert (one.receive(), two.receive()) == ("open", "open")
            for child in (one, two):
                child.send("go")
            of_one, of_two = one.result(), two.result()
        assert sorted([*of_one, *of_two]) == sorted(paths)
        for path in paths:
            expected = b"one" if path in of_one else b"two"
            assert bytes(cache.read(path)) == expected == source.bytes_of(path[2:])
        assert source.left_over() == []


def test_readers_see_old_or_new(open_cache: OpenCache, source: Source) -> None:
    """Never a mix: each version is one byte over and over, in several blocks."""
    size = 3 * MIB

    def read(link: Connection) -> set[bytes]:
        seen = set()
        with open_cache() as cache:
            link.send("open")
            while not link.poll(0):
                try:
                    view = cache.read("d/a")
                except Stale:
                    # Written over twice while this process had no processor.
                    continue
                with view:
                    assert len(view) == size
                    (byte,) = set(bytes(view))
                    seen.add(bytes([byte]))
        return seen

    with open_cache() as cache:
        cache.attach(
            "d", source.uri, writable=True, write_mode="cache_through", max_age=None, **source.options
        )
        cache.put("d/a", b"0" * size)
        with Child(read) as one, Child(read) as two:
            assert (one.receive(), two.receive()) == ("open", "open")
            for number in range(1, 9):
                cache.put("d/a", b"%d" % number * size)
            for child in (one, two):
                child.send("end")
            seen = one.result() | two.result()
    assert seen <= {b"%d" % number for number in range(9)}


def test_threads_of_two_caches_write_and_read(open_cache: OpenCache, source: Source) -> None:
    with open_cache() as cache, open_cache() as other:
        cache.attach("d", source.uri, writable=True, write_mode="cache_through", **source.options)
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                mine = (cache, other)[number % 2]
                for turn in range(5):
                    data = b"%d-%d" % (number, turn)
                    mine.put(f"d/{number}/a", data)
                    # Nobody else writes there: what was written is what is read, by either.
                    assert bytes(cache.read(f"d/{number}/a")) == bytes(other.read(f"d/{number}/a")) == data
            except BaseException as error:  # noqa: BLE001  (shown by the main thread)
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert other.listdir("d") == [str(number) for number in range(8)]
