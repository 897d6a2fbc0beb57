"""Paths and block keys: what is refused, and that two different things never share a key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.cache.paths import block_key, block_keys, check_dataset_name, split_path
from forebay.config import MIB
from forebay.errors import ConfigError


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("data", ("data", "")),
        ("data/", ("data", "")),
        ("data/a", ("data", "a")),
        ("data/a/", ("data", "a")),
        ("data/a/b.bin", ("data", "a/b.bin")),
        ("data/ü\n\x1b[31m", ("data", "ü\n\x1b[31m")),
        ("data/.hidden/..b/c.", ("data", ".hidden/..b/c.")),
        ("data/a\n", ("data", "a\n")),
        ("data/back\\slash", ("data", "back\\slash")),
        ("data/\udcff", ("data", "\udcff")),
    ],
)
def test_paths_that_are_taken(path: str, parts: tuple[str, str]) -> None:
    assert split_path(path) == parts


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "names no dataset"),
        ("/", "names no dataset"),
        ("/data/a", "is absolute"),
        ("//data/a", "is absolute"),
        ("data//a", "contains the part ''"),
        ("data/a//", "contains the part ''"),
        ("data/./a", "contains the part '.'"),
        ("data/../a", r"contains the part '\.\.'"),
        ("data/..", r"contains the part '\.\.'"),
        ("../etc/passwd", r"contains the part '\.\.'"),
        (".", "contains the part '.'"),
        ("..", r"contains the part '\.\.'"),
        ("data/a\0b", "NUL"),
        ("data/\ud800", "surrogate"),
    ],
)
def test_paths_that_are_refused(path: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        split_path(path)


@pytest.mark.parametrize("path", [b"data/a", None, 3])
def test_paths_are_text(path: Any) -> None:
    with pytest.raises(TypeError, match="a path is text"):
        split_path(path)


@given(st.text())
def test_a_path_is_refused_or_safe(path: str) -> None:
    try:
        dataset, rest = split_path(path)
    except ValueError:
        return
    parts = [dataset, *rest.split("/")] if rest else [dataset]
    assert not {"", ".", ".."} & set(parts)
    assert "\0" not in path
    assert "/".join(parts) == path.removesuffix("/")


@pytest.mark.parametrize("name", ["a", "imagenet", "Image-Net_2012.v1", "0", "a" * 128])
def test_dataset_names_that_are_taken(name: str) -> None:
    check_dataset_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "_a", "a/b", "a b", "ü", "a\n", "a" * 129, None, b"a"])
def test_dataset_names_that_are_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match="dataset name"):
        check_dataset_name(name)


Keyed = tuple[int, str, str, int, int]
paths = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
keyed = st.tuples(
    st.integers(1, 3),
    paths,
    st.sampled_from(["", "v", "v1", "W/v"]),
    st.integers(0, 3),
    st.sampled_from([MIB, 4 * MIB]),
)


@given(keyed, keyed)
def test_different_blocks_have_different_keys(first: Keyed, second: Keyed) -> None:
    assert (block_key(*first) == block_key(*second)) == (first == second)


@settings(max_examples=20)
@given(st.lists(st.tuples(paths, st.sampled_from("vw"), st.integers(0, 20) | st.just(140_001)), max_size=3))
def test_all_keys_of_objects_are_those_of_their_blocks(versions: list[tuple[str, str, int]]) -> None:
    lists = list(block_keys(1, versions, 2))
    assert [key for keys in lists for key in keys] == [
        block_key(1, path, version, number, 2)
        for path, version, size in versions
        for number in range((size + 1) // 2)
    ]
    assert all(0 < len(keys) < 140_000 for keys in lists)


def test_a_key_fits_however_long_the_path_is() -> None:
    long_paths = ["p/" * 3_000 + end for end in ("a", "b")]
    keys = {block_key(1, path, "v" * 500, number, MIB) for path in long_paths for number in (0, 1)}
    assert len(keys) == 4
    assert all(len(key) <= 4_096 for key in keys)


def test_a_path_that_is_not_unicode_has_a_key() -> None:
    assert block_key(1, b"\xff".decode("utf-8", "surrogateescape"), "v", 0, MIB) != block_key(
        1, "ÿ", "v", 0, MIB
    )
