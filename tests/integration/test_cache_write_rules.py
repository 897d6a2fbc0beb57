"""Writes through the cache over an under storage that fails by script: what is refused, and what fails."""

from __future__ import annotations

import errno
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB
from forebay.errors import (
    Closed,
    ConfigError,
    NotAttached,
    NotFound,
    UnderStorageError,
    timed_out,
    under_storage_error,
)
from forebay.testing.clock import ManualClock
from forebay.testing.faulty import FaultyStorage
from tests.faults._child import wait_until
from tests.integration._sites import OpenCache, counters

BLOCK = 64 * KIB


def attach_to(cache: Cache, uri: str, **options: Any) -> None:
    cache.attach("d", uri, **{"writable": True, "max_age": None, **options})


def faulty(
    open_cache: OpenCache, max_age: float | None = None, **options: Any
) -> tuple[Cache, FaultyStorage, ManualClock]:
    storage, clock = FaultyStorage(), ManualClock()
    cache = open_cache(schemes=storage.schemes(), clock=clock)
    attach_to(cache, "faulty://x", max_age=max_age, **options)
    storage.calls.clear()
    return cache, storage, clock


def test_what_is_written_is_known_without_a_request(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache, write_mode="cache_through")
    cache.put("d/a", b"1")
    assert (bytes(cache.read("d/a")), cache.stat("d/a").size) == (b"1", 1)
    assert storage.calls == {"put": 1}
    cache.listdir("d")
    cache.put("d/b", b"22")
    assert cache.listdir("d") == ["a", "b"]
    assert storage.calls["list"] == 1


def test_an_absent_path_is_absent_no_more(open_cache: OpenCache) -> None:
    cache, storage, clock = faulty(open_cache, negative_ttl=3600)
    for path in ("d/dir/a", "d/dir"):
        assert not cache.exists(path)
    cache.put("d/dir/a", b"1")
    assert (bytes(cache.read("d/dir/a")), cache.stat("d/dir").is_dir) == (b"1", True)
    clock.advance(1)
    storage.calls.clear()
    cache.delete("d/dir/a")
    for _ in range(2):
        assert not cache.exists("d/dir/a")
    assert storage.calls == {"delete": 1}


def test_what_was_asked_before_the_write_gives_way(open_cache: OpenCache) -> None:
    """A slow answer that was true when it was given must not take the place of what was written since."""
    cache, storage, clock = faulty(open_cache, 60)
    other = open_cache(schemes=storage.schemes(), clock=clock)
    storage.put("a", b"old")

    def write_meanwhile() -> None:
        clock.advance(1)
        cache.put("d/a", b"new")
        clock.advance(1)

    for operation, look in (("stat", lambda: other.stat("d/a")), ("list", lambda: other.listdir("d"))):
        with pytest.MonkeyPatch.context() as patch:
            original = getattr(storage, operation)

            def slow(path: str, original: Any = original) -> Any:
                found = original(path)
                found = list(found) if operation == "list" else found  # noqa: B023
                write_meanwhile()
                return found

            patch.setattr(storage, operation, slow)
            other.free("d", metadata=True)
            look()
        assert cache.stat("d/a").size == 3
        assert bytes(other.read("d/a")) == b"new"
        storage.put("a", b"old")


def test_a_failed_write_leaves_nothing_wrong(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache)
    cache.put("d/a", b"old")
    cache.read("d/a").release()

    def write_and_say_nothing() -> None:
        storage.put("a", b"new")
        raise timed_out("faulty://x/a", "on purpose")

    storage.script("put", write_and_say_nothing, under_storage_error("a", "on purpose"))
    with pytest.raises(TimeoutError):
        cache.put("d/a", b"new")
    # Nobody knows what came of it, so it is asked.
    assert bytes(cache.read("d/a")) == b"new"
    with pytest.raises(UnderStorageError):
        cache.put("d/a", b"newer")
    assert bytes(cache.read("d/a")) == b"new"
    assert counters(cache)["write_errors"] == 2


def test_what_a_failed_write_left_in_doubt_is_reclaimed(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache)
    storage.put("a", b"old")
    assert cache.read("d/a") == b"old"
    storage.script("put", timed_out("a", "on purpose"))
    with pytest.raises(TimeoutError):
        cache.put("d/a", b"new")
    cache.put("d/a", b"newer")
    wait_until(lambda: cache.status()["blocks"] == 0, "what is cached of the old version is reclaimed")


def test_a_refused_write_costs_no_cached_byte(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache)
    cache.put("d/a", b"old")
    cache.read("d/a").release()
    storage.script("put", PermissionError(errno.EACCES, "on purpose", "a"))
    with pytest.raises(PermissionError):
        cache.put("d/a", b"new")
    with pytest.raises(FileExistsError):
        cache.put("d/a", b"new", exclusive=True)
    before = counters(cache)["source_requests"]
    assert bytes(cache.read("d/a")) == b"old"
    assert counters(cache)["source_requests"] == before


def test_datasets_are_read_only_unless_they_are_attached_otherwise(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache)
    cache.attach("r", "faulty://x")
    storage.put("a", b"1")
    for change in (
        lambda: cache.put("r/a", b"2"),
        lambda: cache.open("r/a", "wb"),
        lambda: cache.open("r/b", "xb"),
        lambda: cache.delete("r/a"),
        lambda: cache.delete("r/a", recursive=True),
        lambda: cache.rename("r/a", "r/b"),
        lambda: cache.mkdir("r/b"),
    ):
        with pytest.raises(PermissionError, match="dataset 'r' is attached to be read only") as caught:
            change()
        assert caught.value.errno == errno.EROFS
    assert storage.calls == {"stat": 1}
    with pytest.raises(OSError, match="within one dataset") as crossed:
        cache.rename("d/a", "r/a")
    assert crossed.value.errno == errno.EXDEV


def test_what_cannot_be_written_is_not_attached_to_be(open_cache: OpenCache, tmp_path: Path) -> None:
    cache = open_cache()
    with pytest.raises(ConfigError, match=r"write_mode: 'trough' is unknown \(did you mean 'through'"):
        cache.attach("d", tmp_path.as_uri(), writable=True, write_mode="trough")
    storage = FaultyStorage()
    cache = open_cache(schemes=storage.schemes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "writer", lambda: None)
        with pytest.raises(UnderStorageError, match="only be read") as caught:
            cache.attach("e", "faulty://x", writable=True)
    assert caught.value.errno == errno.EROFS
    assert cache.datasets() == []


def test_a_cache_that_is_read_only_writes_nothing(open_cache: OpenCache) -> None:
    _, storage, _ = faulty(open_cache)
    reader = open_cache(schemes=storage.schemes(), read_only=True)
    for change in (lambda: reader.put("d/a", b"1"), lambda: reader.open("d/a", "wb")):
        with pytest.raises(PermissionError, match="read only"):
            change()
    assert storage.calls == {}


@pytest.mark.parametrize(
    ("path", "error"), [("d", IsADirectoryError), ("d/a/", IsADirectoryError), ("d/../a", ValueError)]
)
def test_paths_that_name_no_object(open_cache: OpenCache, path: str, error: type[Exception]) -> None:
    cache, storage, _ = faulty(open_cache)
    for change in (lambda: cache.put(path, b"1"), lambda: cache.open(path, "wb")):
        with pytest.raises(error):
            change()
    assert storage.calls == {}


@pytest.mark.parametrize("data", ["text", 5, None, memoryview(bytes(8))[::2]])
def test_data_of_another_kind(open_cache: OpenCache, data: object) -> None:
    cache, storage, _ = faulty(open_cache)
    with pytest.raises(TypeError, match="contiguous buffer"):
        cache.put("d/a", data)
    assert storage.calls == {}


def test_local_files(open_cache: OpenCache, tmp_path: Path) -> None:
    cache, storage, _ = faulty(open_cache)
    os.mkfifo(tmp_path / "pipe")
    for name, error in (("absent", FileNotFoundError), (".", IsADirectoryError), ("pipe", OSError)):
        with pytest.raises(error):
            cache.put("d/a", tmp_path / name)
    local = tmp_path / "local"
    local.write_bytes(b"1234")
    cache.put("d/a", local)
    assert bytes(cache.read("d/a")) == b"1234"

    # Rewritten between being read and being sent.
    storage.script("put", None)
    with pytest.MonkeyPatch.context() as patch:
        original = os.pread

        def pread(*arguments: int) -> bytes:
            data = original(*arguments)
            local.write_bytes(b"12345")
            return data

        patch.setattr(os, "pread", pread)
        with pytest.raises(OSError, match="changed while it was read"):
            cache.put("d/a", local)
    assert bytes(cache.read("d/a")) == b"1234"


def test_a_file_is_written_only_by_an_orderly_close(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache)
    large = bytes(2 * MIB)
    with pytest.raises(ZeroDivisionError), cache.open("d/a", "wb") as file:
        file.write(large + bytes(1 // 0))
    assert file.closed
    dropped = cache.open("d/a", "wb")
    dropped.write(large)
    del dropped
    discarded = cache.open("d/a", "wb")
    discarded.write(large)
    discarded.discard()
    discarded.close()
    assert (storage.calls["put"], cache.status()["staging"]["bytes"]) == (0, 0)
    with cache.open("d/a", "wb") as file:
        file.write(large)
    file.close()
    assert (storage.calls["put"], cache.stat("d/a").size) == (1, len(large))


def test_free_leaves_alone_what_is_being_written(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache)
    data = bytes(3 * MIB)
    with cache.open("d/a", "wb") as file:
        file.write(data)
        cache.free("d", data=True, metadata=True)
        assert storage.calls["put"] == 0 < len(data) <= cache.status()["staging"]["bytes"]
    assert cache.read("d/a") == data
    cache.free("d", data=True, metadata=True)
    assert (storage.calls["delete"], cache.read("d/a") == data) == (0, True)


def test_a_file_seeks(open_cache: OpenCache) -> None:
    cache, _, _ = faulty(open_cache)
    with cache.open("d/a", "wb") as file:
        assert (file.writable(), file.seekable(), file.readable(), file.mode) == (True, True, False, "wb")
        file.write(b"0123456789")
        assert file.seek(2) == 2
        file.write(b"ab")
        assert file.seek(-1, os.SEEK_END) == 9
        file.write(b"xyz")
        assert file.seek(3, os.SEEK_CUR) == 15
        assert file.tell() == 15
    assert bytes(cache.read("d/a")) == b"01ab45678xyz"
    with cache.open("d/a", "wb") as file:
        file.seek(5)
        file.write(b"end")
        with pytest.raises(ValueError, match="before the beginning"):
            file.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 7)
        with pytest.raises(OSError, match="read"):
            file.read()
    assert bytes(cache.read("d/a")) == b"\0\0\0\0\0end"
    with pytest.raises(ValueError, match="closed"):
        file.write(b"1")


def test_a_file_does_not_pickle_and_is_none_of_a_child(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache)
    with cache.open("d/a", "wb") as file:
        file.write(bytes(2 * MIB))
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(file)
        pid = os.fork()
        if pid == 0:
            try:
                file.write(b"1")
            except ValueError:
                file.close()
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (cache.stat("d/a").size, storage.calls["put"]) == (2 * MIB, 1)


def test_what_is_open_when_the_dataset_or_the_cache_goes(open_cache: OpenCache) -> None:
    cache, storage, _ = faulty(open_cache)
    file, other = cache.open("d/a", "wb"), cache.open("d/b", "wb")
    file.write(bytes(2 * MIB))
    cache.detach("d")
    with pytest.raises(NotAttached):
        file.close()
    attach_to(cache, "faulty://x")
    with pytest.raises(NotAttached, match="detached since"):
        other.close()
    last = cache.open("d/c", "wb")
    last.write(bytes(2 * MIB))
    cache.close()
    with pytest.raises(Closed):
        last.close()
    assert storage.calls["put"] == 0
    assert list(Path(cache.path, "v1/writes").glob("*[!k]")) == []


@pytest.mark.parametrize("mode", ["w", "x", "a", "r+b", "wt", "w+b"])
def test_other_modes_are_refused(open_cache: OpenCache, mode: str) -> None:
    cache, _, _ = faulty(open_cache)
    with pytest.raises(ValueError, match="'rb', 'wb', 'xb' or 'ab'"):
        cache.open("d/a", mode)  # type: ignore[call-overload]


def test_staging_is_bounded_over_all_files(open_cache: OpenCache, tmp_path: Path) -> None:
    storage = FaultyStorage()
    options = {"staging_dir": tmp_path / "staging", "staging_max": "10MiB"}
    cache, other = (open_cache(schemes=storage.schemes(), **options) for _ in range(2))
    attach_to(cache, "faulty://x")
    first, second = cache.open("d/a", "wb"), other.open("d/b", "wb")
    first.write(bytes(6 * MIB))
    assert cache.status()["staging"] == other.status()["staging"]
    assert cache.status()["staging"] == {
        "path": str(tmp_path / "staging"),
        "bytes": 6 * MIB,
        "bytes_max": 10 * MIB,
    }
    with pytest.raises(OSError, match=r"staging_max: 6291456 of 10485760 bytes are in use") as caught:
        second.write(bytes(5 * MIB))
    assert caught.value.errno == errno.EDQUOT
    # It is known to be incomplete from then on, whatever its writer makes of it.
    for again in (lambda: second.write(b"1"), second.close):
        with pytest.raises(OSError, match="staging_max"):
            again()
    assert second.closed
    first.close()
    with other.open("d/b", "wb") as file:
        file.write(bytes(10 * MIB))
    assert (other.stat("d/b").size, cache.status()["staging"]["bytes"]) == (10 * MIB, 0)
    assert list((tmp_path / "staging").glob("*.staged")) == []


def test_writers_of_one_path_take_turns(open_cache: OpenCache) -> None:
    storage = FaultyStorage()
    cache, other = (open_cache(schemes=storage.schemes()) for _ in range(2))
    attach_to(cache, "faulty://x")
    with ThreadPoolExecutor(8) as pool:
        for number in range(60):
            pool.submit((cache, other)[number % 2].put, "d/a", b"%d" % number)
    with storage.read_range("a", 0, 10) as body:
        last = bytes(body.take(body.length))
    assert (bytes(cache.read("d/a")), bytes(other.read("d/a"))) == (last, last)


def test_two_renames_of_the_same_two_paths(open_cache: OpenCache) -> None:
    cache = open_cache(schemes=FaultyStorage().schemes())
    attach_to(cache, "faulty://x")
    cache.put("d/a", b"1")

    def swap(number: int) -> None:
        pair = ("d/a", "d/b") if number % 2 else ("d/b", "d/a")
        try:
            cache.rename(*pair)
        except NotFound:
            return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(swap, range(100)))
    assert len(cache.listdir("d")) == 1
    assert len([name for name in "ab" if cache.exists(f"d/{name}")]) == 1
