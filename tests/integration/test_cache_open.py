"""Open files and views block by block: what they read, what they fetch ahead, and when they are stale."""

from __future__ import annotations

import errno
import io
import os
import pickle
import random
import tarfile
import time
import zipfile
from collections.abc import Callable

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forebay.cache import Cache
from forebay.config import KIB, MIB
from forebay.errors import Closed, NotFound, Stale, under_storage_error
from forebay.testing.faulty import FaultyStorage

BLOCK = 64 * KIB
WAIT_S = 30
OpenCache = Callable[..., Cache]


def faulty(open_cache: OpenCache, **objects: bytes) -> tuple[Cache, FaultyStorage]:
    storage = FaultyStorage(objects)
    cache = open_cache(schemes=storage.schemes())
    cache.attach("d", "faulty://x", max_age=None)
    storage.calls.clear()
    return cache, storage


def counters(cache: Cache) -> dict[str, int]:
    return dict(cache.status()["counters"])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.002)


def test_reading_to_the_end(open_cache: OpenCache) -> None:
    data = os.urandom(5 * BLOCK + 17)
    cache, _ = faulty(open_cache, a=data, empty=b"")
    with cache.open("d/a") as file:
        assert (file.name, file.size, file.mode, file.tell()) == ("d/a", len(data), "rb", 0)
        assert file.readable()
        assert file.seekable()
        assert not file.writable()
        assert data.startswith(file.peek())
        assert file.peek(10)[:10] == file.read(10) == data[:10]
        assert file.read() == data[10:]
        assert file.peek() == b""
        assert file.read(5) == b""
        assert file.seek(-7, io.SEEK_END) == len(data) - 7
        assert file.read(100) == data[-7:]
        assert file.seek(10 * MIB) == 10 * MIB
        assert file.read(1) == b""
    with cache.open("d/empty") as file:
        assert file.read() == b""


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["read", "read1", "readinto", "readinto1", "seek", "skip", "back"]),
            st.integers(0, 6 * BLOCK),
        ),
        max_size=25,
    )
)
def test_it_behaves_as_a_file_of_the_io_module(open_cache: OpenCache, steps: list[tuple[str, int]]) -> None:
    data = random.Random(7).randbytes(5 * BLOCK + 17)
    cache, _ = faulty(open_cache, a=data)
    with cache.open("d/a") as file, io.BytesIO(data) as expected:
        for step, number in steps:
            if step == "read":
                assert file.read(number) == expected.read(number)
            elif step == "read1":
                found = file.read1(number)
                assert found == expected.read(len(found))
                assert found or number == 0 or file.tell() >= len(data)
            elif step == "readinto":
                buffer = bytearray(number)
                count = file.readinto(buffer)
                assert buffer[:count] == expected.read(number)
            elif step == "readinto1":
                buffer = bytearray(number)
                count = file.readinto1(buffer)
                assert buffer[:count] == expected.read(count)
            elif step == "seek":
                assert file.seek(number) == expected.seek(number)
            elif step == "skip":
                assert file.seek(number, io.SEEK_CUR) == expected.seek(number, io.SEEK_CUR)
            else:
                position = max(len(data) - number, 0)
                assert file.seek(position - len(data), io.SEEK_END) == expected.seek(position)
            assert file.tell() == expected.tell()
    cache.close()


def test_what_makes_no_sense_is_refused(open_cache: OpenCache) -> None:
    cache, _ = faulty(open_cache, a=b"abc", **{"sub/b": b"1"})
    with cache.open("d/a") as file:
        with pytest.raises(ValueError, match="before the beginning"):
            file.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 9)
        with pytest.raises(TypeError, match="pickle the Cache"):
            pickle.dumps(file)
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")
        assert file.tell() == 0
    for attempt in (file.read, file.tell, lambda: file.seek(0)):
        with pytest.raises(ValueError, match="closed"):
            attempt()
    assert "(closed)" in repr(file)
    with pytest.raises(ValueError, match="'rb'"):
        cache.open("d/a", "r+b")  # type: ignore[call-overload]
    for path in ("d", "d/sub"):
        with pytest.raises(IsADirectoryError):
            cache.open(path)
    with pytest.raises(NotFound):
        cache.open("d/none")


def test_a_closed_cache_is_told(open_cache: OpenCache) -> None:
    cache, _ = faulty(open_cache, a=b"1" * 2 * BLOCK)
    file = cache.open("d/a")
    assert file.read(1) == b"1"
    cache.close()
    file.seek(BLOCK)
    with pytest.raises(Closed):
        file.read(1)
    file.close()


def test_the_standard_library_reads_through_it(open_cache: OpenCache) -> None:
    lines = "".join(f"line {number}: äöü\n" for number in range(20_000))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, text in (("a", lines), ("b", lines[:100])):
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", lines)
        archive.writestr("b.txt", "short")
    array, saved = numpy.arange(100_000, dtype="int32").reshape(100, 1000), io.BytesIO()
    numpy.save(saved, array)
    cache, _ = faulty(
        open_cache, text=lines.encode(), tar=packed.getvalue(), zip=zipped.getvalue(), array=saved.getvalue()
    )
    with io.TextIOWrapper(cache.open("d/text"), encoding="utf-8", newline="") as wrapped:
        assert wrapped.read(7) == "line 0:"
        assert list(wrapped)[-1] == "line 19999: äöü\n"
    with cache.open("d/text") as file:
        assert file.readline() == "line 0: äöü\n".encode()
        assert sum(1 for _ in file) == 19_999
    with cache.open("d/tar") as file, tarfile.open(fileobj=file) as tar:
        extracted = tar.extractfile("b")
        assert extracted is not None
        assert extracted.read().decode() == lines[:100]
    with cache.open("d/zip") as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.read("a.txt").decode() == lines
    with cache.open("d/array") as file:
        assert (numpy.load(file) == array).all()


def test_a_sequential_reader_is_fetched_ahead_of(open_cache: OpenCache) -> None:
    data = os.urandom(12 * MIB)
    cache, storage = faulty(open_cache, a=data)
    with cache.open("d/a") as file:
        assert file.read(1) == data[:1]
        # The first window: 1 MiB and 128 KiB.
        wait_until(lambda: counters(cache)["readahead_bytes"] >= MIB)
        assert counters(cache)["readahead_bytes"] <= MIB + 128 * KIB
        assert file.read() == data[1:]
    assert counters(cache)["readahead_bytes"] > 0
    assert storage.calls["read_range"] < 12 * MIB // BLOCK // 2


def test_windows_grow_up_to_the_limit(open_cache: OpenCache) -> None:
    data = os.urandom(12 * MIB)
    storage = FaultyStorage({"a": data})
    cache = open_cache(schemes=storage.schemes(), readahead_max=2 * MIB)
    cache.attach("d", "faulty://x", max_age=None)
    with cache.open("d/a") as file:
        position = 0
        while part := file.read(BLOCK):
            assert part == data[position : position + len(part)]
            position += len(part)
            assert cache.status()["fetch"]["readahead_bytes"] <= 2 * MIB + BLOCK
    assert position == len(data)
    assert cache.status()["fetch"]["readahead_bytes"] == 0


def test_random_reads_fetch_nothing_ahead(open_cache: OpenCache) -> None:
    data = os.urandom(6 * MIB)
    cache, storage = faulty(open_cache, a=data)
    with cache.open("d/a") as file:
        for number in (50, 10, 70, 30, 90):
            file.seek(number * BLOCK)
            assert file.read(100) == data[number * BLOCK : number * BLOCK + 100]
    assert counters(cache)["readahead_bytes"] == 0
    assert storage.calls["read_range"] == 5


def test_readahead_can_be_turned_off(open_cache: OpenCache) -> None:
    storage = FaultyStorage({"a": b"1" * 4 * MIB})
    cache = open_cache(schemes=storage.schemes(), readahead_max=0)
    cache.attach("d", "faulty://x", max_age=None)
    with cache.open("d/a") as file:
        while file.read(BLOCK):
            pass
    assert counters(cache)["readahead_bytes"] == 0


def test_what_was_fetched_ahead_and_not_admitted_is_not_fetched_twice(open_cache: OpenCache) -> None:
    data = os.urandom(4 * MIB)
    cache, storage = faulty(open_cache, a=data)
    with Cache(cache.path, schemes=storage.schemes(), read_only=True) as reader:
        storage.calls.clear()
        with reader.open("d/a") as file:
            position = 0
            while part := file.read(BLOCK):
                assert part == data[position : position + BLOCK]
                position += len(part)
        fetched = storage.calls["read_range"]
    assert position == len(data)
    assert fetched <= len(data) // BLOCK


def test_a_seek_and_a_close_give_the_budget_back(open_cache: OpenCache) -> None:
    data = os.urandom(6 * MIB)
    cache, _ = faulty(open_cache, a=data)
    file = cache.open("d/a")
    file.read(1)
    assert cache.status()["fetch"]["readahead_bytes"] > 0
    file.seek(80 * BLOCK)
    assert file.read(3) == data[80 * BLOCK : 80 * BLOCK + 3]
    assert cache.status()["fetch"]["readahead_bytes"] == 0
    assert file.read(3) == data[80 * BLOCK + 3 : 80 * BLOCK + 6]
    assert cache.status()["fetch"]["readahead_bytes"] > 0
    file.close()
    assert cache.status()["fetch"]["readahead_bytes"] == 0


def test_a_failed_readahead_is_the_readers_to_hear_of_when_it_comes_there(open_cache: OpenCache) -> None:
    data = os.urandom(MIB)
    cache, storage = faulty(open_cache, a=data)
    cache.read("d/a", 0, 1).release()
    with cache.open("d/a") as file:
        storage.script("readinto", under_storage_error("a", "reset"))
        assert file.read(BLOCK) == data[:BLOCK]
        wait_until(lambda: counters(cache)["source_errors"] == 1)
        assert file.read() == data[BLOCK:]


def test_an_open_file_is_stale_when_the_version_changed(open_cache: OpenCache) -> None:
    cache, storage = faulty(open_cache, a=b"o" * 3 * BLOCK, b=b"o" * 3 * BLOCK)
    with cache.open("d/a") as file, cache.open("d/b") as other:
        assert file.read(BLOCK) == other.read(BLOCK) == b"o" * BLOCK
        storage.put("a", b"n" * 3 * BLOCK)
        cache.sync("d/a")
        with pytest.raises(Stale) as caught:
            file.read()
        assert caught.value.errno == errno.ESTALE
        assert other.read() == b"o" * 2 * BLOCK
    with cache.open("d/a") as file:
        assert file.read() == b"n" * 3 * BLOCK


def test_an_open_file_hears_of_the_change_from_the_under_storage(open_cache: OpenCache) -> None:
    storage = FaultyStorage({"a": b"o" * 3 * MIB})
    cache = open_cache(schemes=storage.schemes(), readahead_max=0)
    cache.attach("d", "faulty://x", max_age=None)
    with cache.open("d/a") as file:
        assert file.read(BLOCK) == b"o" * BLOCK
        storage.put("a", b"n" * 3 * MIB)
        with pytest.raises(Stale):
            file.read()


@pytest.mark.parametrize("length", [BLOCK, 3 * BLOCK])
def test_after_stale_the_object_opens_in_its_new_version(open_cache: OpenCache, length: int) -> None:
    cache, storage = faulty(open_cache, a=b"o" * 3 * BLOCK, b=b"o" * 3 * BLOCK)
    cache.listdir("d")
    storage.put("a", b"n" * 3 * BLOCK)
    storage.remove("b")
    with cache.open("d/a") as file, pytest.raises(Stale):
        file.read(length)
    with cache.open("d/a") as file:
        assert file.read(length) == b"n" * length
    storage.put("a", b"m" * 3 * BLOCK)
    cache.free("d", metadata=False)
    with pytest.raises(Stale):
        next(cache.views("d/a"))
    assert bytes(next(cache.views("d/a"))) == b"m" * BLOCK
    with cache.open("d/b") as file, pytest.raises(NotFound):
        file.read(length)
    storage.put("b", b"22")
    with cache.open("d/b") as file:
        assert file.read() == b"22"


def test_a_forked_child_reads_on(open_cache: OpenCache) -> None:
    data = os.urandom(4 * MIB)
    cache, _ = faulty(open_cache, a=data)
    file = cache.open("d/a")
    assert file.read(BLOCK) == data[:BLOCK]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if file.read() == data[BLOCK:] else 2
            file.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert file.read() == data[BLOCK:]
    file.close()


def test_views_are_the_blocks_in_order(open_cache: OpenCache) -> None:
    data = os.urandom(3 * MIB + 5)
    cache, storage = faulty(open_cache, a=data, empty=b"")
    lengths, found = [], b""
    for view in cache.views("d/a"):
        with view:
            lengths.append(len(view))
            found += bytes(view)
    assert found == data
    assert set(lengths[:-1]) == {BLOCK}
    assert storage.calls["read_range"] < len(lengths) // 2
    assert list(cache.views("d/empty")) == []
    assert cache.status()["fetch"]["readahead_bytes"] == 0


def test_views_are_of_one_version(open_cache: OpenCache) -> None:
    storage = FaultyStorage({"a": b"o" * 3 * BLOCK})
    cache = open_cache(schemes=storage.schemes(), readahead_max=0)
    cache.attach("d", "faulty://x", max_age=None)
    views = cache.views("d/a")
    assert next(views) == b"o" * BLOCK
    storage.put("a", b"n" * 3 * BLOCK)
    with pytest.raises(Stale):
        next(views)


def test_views_given_up_halfway_give_everything_back(open_cache: OpenCache) -> None:
    cache, _ = faulty(open_cache, a=os.urandom(4 * MIB))
    views = cache.views("d/a")
    next(views).release()
    views.close()  # type: ignore[attr-defined]  # it is a generator
    assert cache.status()["fetch"]["readahead_bytes"] == 0
