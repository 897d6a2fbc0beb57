"""``forebay://`` over a storage that refuses or does not answer: it is told, and never taken for absence."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest

from forebay.api.fsspec import ForebayFileSystem
from forebay.errors import NotFound
from tests._s3 import Handler, give_keys
from tests._s3_writes import WritableS3
from tests.integration._fsspec import Site, site

__all__ = ["site"]

OBJECTS = {"a": b"bytes of a", "sub/b": b"bytes of b", "sub/refused/c": b"bytes of c"}


def refuse_a_listing(handler: Handler) -> bool:
    """Refuse to list one of the directories."""
    refused = "list-type" in handler.path and "refused" in handler.path
    if refused:
        handler.refuse(HTTPStatus.FORBIDDEN, "AccessDenied")
    return refused


@pytest.fixture
def server(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableS3]:
    """Serve the objects as the dataset ``s``, one directory of which cannot be listed."""
    give_keys(monkeypatch)
    with WritableS3() as server:
        server.objects.update(OBJECTS)
        site.cache.attach("s", "s3://bucket", endpoint_url=server.url, writable=True)
        server.interfere = refuse_a_listing
        yield server


@pytest.mark.parametrize(
    "call",
    [
        lambda fs: fs.find("s"),
        lambda fs: fs.find("s", withdirs=True, detail=True),
        lambda fs: fs.glob("s/**"),
        lambda fs: fs.du("s"),
        lambda fs: list(fs.walk("s")),
        lambda fs: fs.expand_path("s/*", recursive=True),
        lambda fs: fs.cat("s", recursive=True),
        lambda fs: fs.mv("s/sub", "s/moved", recursive=True),
        lambda fs: fs.rm("s/sub", recursive=True, maxdepth=3),
        lambda fs: asyncio.run(fs._glob("s/**")),
        lambda fs: asyncio.run(walked(fs)),
    ],
)
def test_what_cannot_be_listed_is_never_left_out(site: Site, server: WritableS3, call: Any) -> None:
    with pytest.raises(PermissionError, match="refused"):
        call(site.fs)
    assert server.objects == OBJECTS


async def walked(fs: ForebayFileSystem) -> list[Any]:
    return [each async for each in fs._walk("s")]


def test_what_is_absent_is_left_out_and_what_is_said_of_errors_holds(site: Site, server: WritableS3) -> None:
    fs, listed = site.fs, [("s", ["sub"], ["a"]), ("s/sub", ["refused"], ["b"])]
    for absent in ("s/none", "none", "d/none"):
        assert (fs.find(absent), list(fs.walk(absent)), fs.glob(f"{absent}/*")) == ([], [], [])
        assert asyncio.run(fs._find(absent)) == []
    told: list[OSError] = []
    assert list(fs.walk("s", on_error="omit")) == list(fs.walk("s", on_error=told.append)) == listed
    assert [type(each) for each in told] == [PermissionError]
    with pytest.raises(FileNotFoundError):
        list(fs.walk("s/none", on_error="raise"))


GIVE_UP = """
import asyncio, json, sys
import fsspec

async def give_up():
    fs = fsspec.filesystem("forebay", asynchronous=True, **json.loads(sys.argv[1]))
    reading = asyncio.ensure_future(fs._cat_file("s/silent"))
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    reading.cancel()

asyncio.run(give_up())
"""


def test_the_interpreters_end_does_not_wait_for_a_silent_storage(site: Site, server: WritableS3) -> None:
    asked, answers = threading.Event(), threading.Event()

    def be_silent(handler: Handler) -> bool:
        if "silent" in handler.path:
            asked.set()
            answers.wait()
        return False

    server.interfere = be_silent
    command = [sys.executable, "-c", GIVE_UP, json.dumps(site.options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as program:
        try:
            assert asked.wait(60)
            program.communicate("give up\n", timeout=60)
            assert program.returncode == 0
        finally:
            answers.set()


@pytest.mark.parametrize(
    "read",
    [
        lambda fs, paths: fs.cat(paths, on_error="return").values(),
        lambda fs, paths: fs.cat_ranges(paths, 0, 5),
    ],
)
def test_what_cannot_be_read_of_many_is_asked_for_side_by_side(
    site: Site, server: WritableS3, read: Any
) -> None:
    absent = [f"s/absent{number}" for number in range(4)]
    together = threading.Barrier(len(absent))

    def wait_for_the_others(handler: Handler) -> bool:
        if "absent" in handler.path:
            together.wait(60)
        return False

    server.interfere = wait_for_the_others
    found = list(read(site.fs, ["s/a", *absent, "s/sub/b"]))
    assert [type(each) for each in found[1:-1]] == [NotFound] * len(absent)
    assert (found[0][:5], found[-1][:5]) == (b"bytes", b"bytes")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda fs, paths: fs.sizes(paths), [1, 2, 3, 4]),
        (lambda fs, paths: fs.cat_ranges(paths, -1, None), [b"x"] * 4),
    ],
)
def test_sizes_of_many_are_asked_for_side_by_side(
    site: Site, server: WritableS3, ask: Any, told: list[Any]
) -> None:
    server.objects.update({f"new{count}": b"x" * count for count in range(1, 5)})
    together = threading.Barrier(4)

    def wait_for_the_others(handler: Handler) -> bool:
        if handler.command == "HEAD":
            together.wait(60)
        return False

    server.interfere = wait_for_the_others
    assert ask(site.fs, [f"s/new{count}" for count in range(1, 5)]) == told
