"""File lists: every source of names, what a line may be, and what is told of a bad one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.cache.loads.filelist import (
    LINE_BYTES_MAX,
    FileList,
    ListedName,
    read_file_list,
    storage_options,
)
from forebay.errors import ConfigError, NotFound
from forebay.testing.faulty import FaultyStorage
from forebay.ufs import SCHEMES


def read(files: FileList, **schemes: Any) -> list[ListedName]:
    return list(read_file_list(files, lambda url: {}, schemes or SCHEMES))


def names(files: FileList) -> list[str]:
    found = read(files)
    assert [name.error for name in found] == [None] * len(found)
    return [name.name for name in found]


LIST = b"a.bin\nsub/b.bin\r\n\n  \t\n# a comment\n with blanks \nlast"
NAMES = [(1, "a.bin"), (2, "sub/b.bin"), (6, " with blanks "), (7, "last")]


def pairs(found: list[ListedName]) -> list[tuple[int, str]]:
    assert all(name.error is None for name in found)
    return [(name.line, name.name) for name in found]


def test_a_list_file(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(LIST)
    assert pairs(read(tmp_path / "list")) == NAMES
    assert pairs(read(str(tmp_path / "list"))) == NAMES


def test_a_stream_of_bytes_or_text_is_read_and_left_open(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(LIST)
    with open(tmp_path / "list") as text, open(tmp_path / "list", "rb") as raw:
        assert pairs(read(text)) == pairs(read(raw)) == NAMES
        assert not text.closed
        assert not raw.closed
    assert pairs(read(io.BytesIO(LIST))) == NAMES
    assert pairs(read(io.StringIO(LIST.decode()))) == NAMES


def test_an_object_behind_a_url(tmp_path: Path) -> None:
    (tmp_path / "list of files").write_bytes(LIST)
    assert pairs(read((tmp_path / "list of files").as_uri().replace("%20", " "))) == NAMES
    with pytest.raises(NotFound):
        read((tmp_path / "none").as_uri())
    with pytest.raises(ConfigError, match="unknown scheme 'gopher'"):
        read("gopher://host/list")
    with pytest.raises(ValueError, match="names no object"):
        read("file:///")


def test_an_object_of_many_parts_is_read_as_one_version() -> None:
    lines = [f"{number:0100}" for number in range(100_000)]
    storage = FaultyStorage({"list": "\n".join(lines).encode()})
    factory = storage.schemes()["faulty"]
    assert [name.name for name in read("faulty://b/list", faulty=factory)] == lines
    assert storage.calls["read_range"] == 3
    storage.script("readinto", lambda: storage.put("list", b"other"))
    with pytest.raises(OSError, match="the object changed"):
        read("faulty://b/list", faulty=factory)


def test_an_empty_object_is_an_empty_list() -> None:
    storage = FaultyStorage({"list": b""})
    assert read("faulty://b/list", faulty=storage.schemes()["faulty"]) == []


def test_names_of_a_program_are_taken_as_they_are() -> None:
    assert names(["a", "# no comment", " b ", "new\nline"]) == ["a", "# no comment", " b ", "new\nline"]

    def generate() -> Iterator[str]:
        yield from ("x/1", "x/2")

    assert names(generate()) == ["x/1", "x/2"]
    assert names({"one": None}.keys()) == ["one"]
    (bad,) = read([3])  # type: ignore[list-item]
    assert (bad.line, bad.name, bad.error) == (1, "3", "a name is text, not int")


@pytest.mark.parametrize("files", [3, b"bytes", {"a": 1}, None, 1.5])
def test_what_is_no_list_of_files_is_a_type_error(files: Any) -> None:
    with pytest.raises(TypeError, match="is neither a list file, a URL, a stream nor names"):
        read(files)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"/absolute", "is absolute"),
        (b"a/../b", "contains the part '..'"),
        (b"./a", "contains the part '.'"),
        (b"..", "contains the part '..'"),
        (b"a//b", "contains the part ''"),
        (b"a/", "contains the part ''"),
        (b"a\0b", "contains a NUL byte"),
        (b"caf\xe9", "is not UTF-8: unexpected end of data at byte 3"),
        (b"x" * (LINE_BYTES_MAX + 1), "is longer than 65536 bytes"),
        (b"x" * (9 << 20), "is longer than 65536 bytes"),
    ],
)
def test_a_bad_line_is_told_of_with_its_number_and_ends_nothing(
    tmp_path: Path, line: bytes, error: str
) -> None:
    (tmp_path / "list").write_bytes(b"good\n" + line + b"\nbetter\n")
    good, bad, better = read(tmp_path / "list")
    assert (good, better) == (ListedName(1, "good"), ListedName(3, "better"))
    assert bad.line == 2
    assert error in (bad.error or "")
    assert len(bad.name) <= 800


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n")
    assert [name.name for name in read(tmp_path / "list")] == ["a", "\ufeffb"]


def test_a_list_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        read(tmp_path)


@given(st.lists(st.text(st.characters(exclude_characters="\n\0/.", codec="utf-8"), min_size=1)))
def test_what_is_written_line_by_line_is_read_back(lines: list[str]) -> None:
    lines = [line for line in lines if line.strip() and not line.startswith("#") and line[-1] != "\r"]
    lines = [line for line in lines if line.encode().strip()]
    written = "\n".join(["first", *lines]).encode()
    assert [name.name for name in read(io.BytesIO(written))] == ["first", *lines]


def test_a_list_has_the_options_of_its_dataset_if_it_lies_in_the_same_kind_of_storage() -> None:
    options_of = storage_options("s3://bucket/data", {"endpoint_url": "http://e"})
    assert options_of("s3://other/list") == {"endpoint_url": "http://e"}
    assert options_of("file:///tmp/list") == {}
