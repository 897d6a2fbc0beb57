"""Patterns of paths: what matches, and where a walk for a pattern begins."""

from __future__ import annotations

import time

import pytest

from forebay.cache.loads.glob import Glob


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.jpg", "a.jpg", True),
        ("*.jpg", "a.JPG", False),
        ("*.jpg", "sub/a.jpg", False),
        ("**/*.jpg", "a.jpg", True),
        ("**/*.jpg", "x/y/z/a.jpg", True),
        ("**/*.jpg", "x/a.jpg/b", False),
        ("train/**", "train/a", True),
        ("train/**", "train/a/b/c", True),
        ("train/**", "trainer/a", False),
        ("**", "a/b/c", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/b/c", False),
        ("**/a/**/b", "x/a/y/a/z/b", True),
        ("**/**/b", "b", True),
        ("a**", "abc", True),
        ("a**", "ab/c", False),
        ("?.bin", "a.bin", True),
        ("?.bin", "/.bin", False),
        ("[ab].bin", "b.bin", True),
        ("[!ab].bin", "c.bin", True),
        ("[!ab].bin", "a.bin", False),
        ("x[!a]y", "x/y", False),
        (".*", ".hidden", True),
        ("*", ".hidden", True),
        ("a.b", "axb", False),
        ("new\nline*", "new\nline2", True),
        ("*", "a\n", True),
    ],
)
def test_matching(pattern: str, path: str, matches: bool) -> None:
    assert Glob(pattern).matches(path) is matches


@pytest.mark.parametrize(
    ("pattern", "root"),
    [
        ("*.jpg", ""),
        ("train/*.jpg", "train"),
        ("train/x/**/a", "train/x"),
        ("train/x/a", "train/x"),
        ("tr[a]in/x/*", ""),
        ("**/x", ""),
    ],
)
def test_a_walk_begins_below_the_plain_parts(pattern: str, root: str) -> None:
    assert Glob(pattern).root == root


@pytest.mark.parametrize("pattern", ["", "/abs", "a//b", "a/", "../a", "a/./b", "a\0"])
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="a pattern is relative to what is loaded"):
        Glob(pattern)


def test_a_hostile_pattern_takes_no_time() -> None:
    glob = Glob("/".join(["**", "*a*a*a*a*a*b"] * 8))
    begun = time.process_time()
    assert not glob.matches("/".join(["a" * 60] * 60))
    assert time.process_time() - begun < 5
