"""Hostile names and sizes through the whole cache: what can be named is served, the rest hides nothing."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from forebay.cache import Cache
from forebay.config import KIB, MIB, Tier
from forebay.errors import NotFound
from tests._moto import begin_anew, moto_server, put_into_moto
from tests._s3 import BUCKET, FakeS3, Handler, give_keys
from tests.faults._source import BLOCK, Site, content

LONG: Final = "é" * 127 + "/" + "k" * 255
KEYS: Final = [
    "a/b",
    "plain",
    "with space",
    " leading and trailing ",
    "new\nline",
    "tab\tand\x1b[31mescape\x7f",
    "per%2Fcent%25",
    "plus+and&=?#;:@!$'()*,",
    'quote"and\\backslash',
    "<xml>&amp;]]>",
    "日本語/ü/\U0001f600",
    "\uff46ull-width\u200bzero-width\u202ereversed",
    "...",
    "..a/.b/c..",
    "-rf",
    "~root",
    "*?[a]{b}",
    LONG,
]
# S3 takes names that no file system has: an object beside a directory, 1,024 bytes in one part.
KEYS_OF_S3: Final = ["a", "x" * 1_024, "ü" * 512, "/".join("d" * 511), "CON", "very" + "/deep" * 200]
# No path can name these; there is nothing to be seen of them, and they hide nothing.
UNNAMEABLE: Final = ["a//b", "//", "/lead", "trail/", "./dot", "dots/../up", "..", "mid/./dle"]


def directory_of(name: str) -> str:
    return name.rpartition("/")[0]


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(params=["file", "s3", "moto"])
def keys(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, dict[str, Any], list[str]]]:
    """A place full of hostile names: its URI, options, and the names that paths can have."""
    give_keys(monkeypatch)
    if request.param == "file":
        for key in KEYS:
            (tmp_path / "data" / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / key).write_bytes(content(key))
        yield (tmp_path / "data").as_uri(), {}, KEYS
        return
    named = KEYS + KEYS_OF_S3
    if request.param == "moto":
        # It takes no newline in a URL.
        named = [key for key in named if "\n" not in key]
        begin_anew()
        for key in named + UNNAMEABLE:
            put_into_moto(key, content(key))
        yield f"s3://{BUCKET}", {"endpoint_url": request.getfixturevalue("moto_url")}, named
        return
    with FakeS3() as server:
        server.objects.update({key: content(key) for key in named + UNNAMEABLE})
        yield f"s3://{BUCKET}", {"endpoint_url": server.url}, named


def open_cache(tmp_path: Path, memory_path: Path) -> Cache:
    return Cache(tmp_path / "cache", [Tier(str(memory_path), 64 * MIB, "MEM")], block_bytes=BLOCK)


def names_below(cache: Cache, dataset: str) -> list[str]:
    return [
        f"{directory}/{name}"[len(dataset) + 1 :]
        for directory, _, names in cache.walk(dataset)
        for name in names
    ]


def test_hostile_names_are_read_listed_loaded_and_freed(
    keys: tuple[str, dict[str, Any], list[str]], tmp_path: Path, memory_path: Path
) -> None:
    uri, options, named = keys
    with open_cache(tmp_path, memory_path) as cache:
        cache.attach("d", uri, max_age=None, **options)
        for name in named[::2]:
            # Unknown: the first that is asked of it is its bytes.
            assert cache.read(f"d/{name}") == content(name), name
        assert sorted(names_below(cache, "d")) == sorted(named)
        for name in named:
            assert cache.stat(f"d/{name}").size == 1_000
            assert cache.read(f"d/{name}", 10, 20) == content(name)[10:30], name
        views = cache.read_many([f"d/{name}" for name in named])
        assert [bytes(view) for view in views] == [content(name) for name in named]
        assert cache.sync("d").changed == 0
        cache.free("d/" + named[0], metadata=True)
        result = cache.load("d", verify=True).wait(60)
        assert (result.state, result.progress.files_done, result.progress.files_skipped) == (
            "done",
            1,
            len(named) - 1,
        )
    # What was written down of them is read back the same.
    with open_cache(tmp_path, memory_path) as cache:
        requests = cache.status()["counters"]["source_requests"]
        for name in named:
            assert cache.open(f"d/{name}").read() == content(name)
        assert cache.status()["counters"]["source_requests"] == requests
        assert cache.check().ok


@pytest.mark.parametrize("path", ["a//b", "trail//", "./dot", "dots/../up", "..", "a/.", "nul\0"])
def test_what_no_path_can_name_is_refused_by_name(path: str, tmp_path: Path, memory_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with open_cache(tmp_path, memory_path) as cache:
        cache.attach("d", (tmp_path / "data").as_uri())
        for attempt in (
            cache.read,
            cache.stat,
            cache.listdir,
            cache.open,
            cache.sync,
            cache.free,
            cache.load,
        ):
            with pytest.raises(ValueError, match=r"path .* contains"):
                attempt(f"d/{path}")
        assert cache.jobs() == []


SIZES: Final = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK - 1, 3 * BLOCK, 3 * BLOCK + 1, 17 * BLOCK + 1]


def read_into(cache: Cache, path: str, size: int) -> bytes:
    buffer = bytearray(size + 3)
    count = cache.readinto(path, buffer)
    assert buffer[count:] == bytes(len(buffer) - count)
    return bytes(buffer[:count])


def by_parts(cache: Cache, path: str, size: int) -> bytes:
    return b"".join(bytes(cache.read(path, offset, BLOCK - 1)) for offset in range(0, size, BLOCK - 1))


WAYS: Final[dict[str, Callable[[Cache, str, int], bytes]]] = {
    "read": lambda cache, path, size: bytes(cache.read(path)),
    "read_many": lambda cache, path, size: bytes(cache.read_many([path])[0]),
    "readinto": read_into,
    "views": lambda cache, path, size: b"".join(bytes(view) for view in cache.views(path)),
    "open": lambda cache, path, size: cache.open(path).read(),
    "parts": by_parts,
}


@pytest.mark.parametrize("is_listed", [False, True])
def test_every_size_by_every_way(
    is_listed: bool, tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_keys(monkeypatch)
    objects = {str(size): content("sized", size) for size in SIZES}
    with FakeS3() as server:
        server.objects.update(objects)
        site = Site(server, tmp_path / "cache", memory_path)
        with site.open() as cache:
            for way, run in WAYS.items():
                cache.free("d", metadata=True)
                if is_listed:
                    cache.listdir("d")
                for name, data in [*objects.items(), *objects.items()]:
                    assert run(cache, f"d/{name}", len(data)) == data, (way, name)
            for name, data in objects.items():
                for offset in (max(len(data) - 1, 0), len(data), len(data) + 1):
                    assert cache.read(f"d/{name}", offset) == data[offset:]
                    assert cache.readinto(f"d/{name}", bytearray(5), offset) == len(data[offset:])
            cache.free("d", metadata=True)
            assert cache.load("d", wait=True).result().ok
            assert [bytes(cache.read(f"d/{name}")) for name in objects] == list(objects.values())


HUGE: Final = 5 << 40


def claim_huge(handler: Handler) -> bool:
    """Answer every range of ``huge`` with as many zeros, and say that there are 5 TiB of them."""
    if not handler.path.startswith(f"/{BUCKET}/huge"):
        return False
    found = re.fullmatch(r"bytes=([0-9]+)-([0-9]+)", handler.headers.get("Range", ""))
    if found is None:
        handler.send_response(200)
        handler.send_header("ETag", '"h"')
        handler.send_header("Content-Length", str(HUGE))
        handler.end_headers()
        return True
    first, last = int(found[1]), min(int(found[2]), HUGE - 1)
    handler.reply(206, bytes(last - first + 1), ETag='"h"', Content_Range=f"bytes {first}-{last}/{HUGE}")
    return True


@pytest.mark.timeout(60)
def test_an_object_that_claims_5_tib_is_read_in_parts_and_never_allocated(
    tmp_path: Path, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_keys(monkeypatch)
    with FakeS3() as server:
        server.interfere = claim_huge
        site = Site(server, tmp_path / "cache", memory_path)
        with site.open() as cache:
            before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            assert cache.read("d/huge", HUGE - 10) == bytes(10)
            assert cache.read("d/huge", 1 << 40, 2 * BLOCK) == bytes(2 * BLOCK)
            assert cache.stat("d/huge").size == HUGE
            with pytest.raises(ValueError, match=r"max_read_bytes.*open, views or readinto"):
                cache.read("d/huge")
            with pytest.raises(ValueError, match="max_read_bytes"):
                cache.read_many(["d/huge"])
            with cache.open("d/huge") as file:
                file.seek(-5, os.SEEK_END)
                assert file.read() == bytes(5)
            assert len(next(cache.views("d/huge"))) == BLOCK
            assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) * KIB < 300 * MIB
            cache.free("d/huge", data=False, metadata=True)
            server.interfere = None
            with pytest.raises(NotFound):
                cache.read("d/huge")
