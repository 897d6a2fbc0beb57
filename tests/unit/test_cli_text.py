"""What the command line writes: sizes, times, and names that may hold anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.cli.text import printable, size_text, time_text


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
