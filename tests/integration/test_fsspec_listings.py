"""``forebay://`` over a folder lists what fsspec's own file system of local folders does, in all its ways."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import fsspec
import pytest

from tests.integration._fsspec import Site, site

__all__ = ["site"]

NAMES = ["a", "b.txt", "s/x.txt", "s/y", "s/t/z.txt", "s/t/u/v", "q/[w].txt", "q/sp ace#?%20", "e.d/f.g"]
PLACES = ["", "/s", "/s/t", "/a", "/none", "/empty"]
PATTERNS = ["/*", "/**", "/**/*.txt", "/s/**/z*", "/?", "/[ab]*", "/*/", "/s*/*/", "/q/[[]w].txt", "/e.d/*"]
DEPTHS = [None, 1, 2, 3]


@pytest.fixture
def both(site: Site) -> Callable[[Callable[[Any, str], Any]], tuple[Any, Any]]:
    """Have something listed by both file systems, and named alike."""
    for name in NAMES:
        site.write(name, name.encode())
    (site.folder / "empty").mkdir()
    local, root = fsspec.filesystem("file"), str(site.folder)

    def named(found: Any) -> Any:
        if isinstance(found, dict) and "type" in found:
            return found["type"], found["size"] if found["type"] == "file" else 0
        if isinstance(found, dict):
            return {named(name): named(each) for name, each in found.items()}
        if isinstance(found, list | tuple):
            return [named(each) for each in found]
        return found.replace(root, "d") if isinstance(found, str) else found

    return lambda ask: (named(ask(site.fs, "d")), named(ask(local, root)))


@pytest.mark.parametrize("place", PLACES)
def test_what_is_found_and_walked_is_the_same(both: Any, place: str) -> None:
    for depth, flag, detail in itertools.product(DEPTHS, (False, True), (False, True)):

        def find(fs: Any, root: str, depth: Any = depth, flag: bool = flag, detail: bool = detail) -> Any:
            return fs.find(f"{root}{place}", maxdepth=depth, withdirs=flag, detail=detail)

        def walk(fs: Any, root: str, depth: Any = depth, flag: bool = flag, detail: bool = detail) -> Any:
            walked = fs.walk(f"{root}{place}", maxdepth=depth, topdown=flag, detail=detail)
            # Nobody says in which order directories are walked.
            return sorted(
                [path, *(sorted(each.items() if detail else each) for each in lists)]
                for path, *lists in walked
            )

        for ask in (find, walk):
            ours, theirs = both(ask)
            assert ours == theirs


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_a_pattern_matches_is_the_same(both: Any, pattern: str) -> None:
    for depth in DEPTHS:
        ours, theirs = both(lambda fs, root, depth=depth: fs.glob(f"{root}{pattern}", maxdepth=depth))
        assert ours == theirs


def test_directories_taken_out_of_a_walk_are_not_gone_into(both: Any) -> None:
    def walk(fs: Any, root: str) -> list[str]:
        found = []
        for path, below, _ in fs.walk(root):
            found.append(path)
            below[:] = [name for name in below if name != "s"]
        return sorted(found)

    ours, theirs = both(walk)
    assert ours == theirs == ["d", "d/e.d", "d/empty", "d/q"]
