"""A small tree of objects in an under storage in memory, and all that a cache shows of one."""

from __future__ import annotations

from forebay.cache import Cache

TREE = {"a": b"1", "sub/b": b"22", "sub/c": b"333", "sub/deep/d": b"4", "z/e": b"5"}


def everything(cache: Cache, path: str) -> dict[str, bytes]:
    """Return all objects below a path by their paths in the dataset, read one by one."""
    paths = [f"{directory}/{name}" for directory, _, names in cache.walk(path) for name in names]
    return {each.partition("/")[2]: bytes(cache.read(each)) for each in paths}
