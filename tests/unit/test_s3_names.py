"""Which keys a path can name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.ufs._s3_names import is_marker, is_name, is_path


@pytest.mark.parametrize(
    "key",
    ["a", "a/b", "a/b.txt", "...", "a/...", ".hidden", "a.", "a./b", "..a", "ü/😀", "a\nb", " ", "a/ /b"],
)
def test_what_a_path_can_name(key: str) -> None:
    assert is_path(key)


@pytest.mark.parametrize(
    "key", ["", "/", "a/", "/a", "a//b", ".", "..", "./a", "a/.", "a/..", "a/../b", "a/./b", "a\0b"]
)
def test_what_no_path_can_name(key: str) -> None:
    assert not is_path(key)


@given(st.text(alphabet="a./\0", max_size=8))
def test_a_path_is_made_of_names(key: str) -> None:
    assert is_path(key) == all(is_name(part) for part in key.split("/"))


def test_only_an_empty_object_marks_a_directory() -> None:
    assert is_marker("d/", 0)
    assert is_marker("", 0)
    assert not is_marker("d/", 1)
    assert not is_marker("d", 0)
    assert not is_marker("d/..", 0)
