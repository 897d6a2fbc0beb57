"""What the command line writes: sizes, times, and names that may hold anything."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.cli.text import columns, json_array, printable, share_text, size_text, time_text


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 30, "1.0 GiB"),
        (5 << 40, "5.0 TiB"),
        (1 << 70, "1048576.0 PiB"),
    ],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


def test_times() -> None:
    assert time_text(0) == "-"
    assert time_text(1_700_000_000_999_999_999) == "2023-11-14 22:13:20"
    assert time_text(1 << 100) == "-"


def test_shares() -> None:
    assert share_text(3, 8) == "37.5 %"
    assert share_text(3, 0) == "-"


def test_columns_are_in_line() -> None:
    rows = [("a\x1b", "7", "x"), ("longer", "1024 KiB", ""), ("b", "-", "y")]
    assert columns(("name", "size", "rest"), rows) == [
        "name        size  rest",
        r"a\x1b          7  x",
        "longer  1024 KiB",
        "b              -  y",
    ]
    assert columns(("name", "size"), []) == ["name  size"]


@given(st.lists(st.dictionaries(st.text(), st.text()), max_size=3))
def test_arrays_are_json(items: list[dict[str, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        written: list[str] = []
        patch.setattr("click.echo", lambda text, nl=True: written.append(text + ("\n" if nl else "")))
        with json_array() as array:
            for item in items:
                array.add(item)
    assert json.loads("".join(written)) == items


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 文", "plain ü 文"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb\tc\x7f", r"a\nb\tc\x7f"),
        ("\u202egnp.exe", r"\xe2\x80\xaegnp.exe"),
        ("raw\udcff", r"raw\xff"),
    ],
)
def test_names(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_nothing_unprintable_is_left(text: str) -> None:
    assert all(char.isprintable() for char in printable(text))
    assert printable(printable(text)) == printable(text)
