"""How much of what lies at a path is cached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay.cache.datasets import Attached
from forebay.cache.paths import block_keys, split_path
from forebay.cache.status import FileStatus
from forebay.cache.tree import Tree

if TYPE_CHECKING:
    from forebay.store import BlockStore


@dataclass(frozen=True, slots=True)
class Usage:
    """Objects at and below a path, their bytes, and how many of those the cache holds."""

    objects: int = 0
    bytes: int = 0
    cached_bytes: int = 0


def usage_of(store: BlockStore, tree: Tree, attached: Attached, status: FileStatus) -> Usage:
    """Count what status describes, and all below it if it is a directory. No cached byte is read.

    Raises: as Tree.statuses.
    """
    count = size = cached = 0
    for each in _objects(tree, attached, status):
        count += 1
        size += each.size
        _, path = split_path(each.path)
        cached += cached_bytes_of(store, attached, path, each.version, each.size)
    return Usage(count, size, cached)


def _objects(tree: Tree, attached: Attached, status: FileStatus) -> Iterator[FileStatus]:
    directories = [status]
    while directories:
        found = directories.pop()
        if not found.is_dir:
            yield found
            continue
        for child in tree.statuses(attached, split_path(found.path)[1]):
            if child.is_dir:
                directories.append(child)
            else:
                yield child


def cached_bytes_of(store: BlockStore, attached: Attached, path: str, version: str, size: int) -> int:
    """Return how many bytes of one version of an object are cached."""
    block_bytes = store.block_bytes
    cached, there = 0, b""
    for keys in block_keys(attached.record.id, [(path, version, size)], block_bytes):
        there = store.contains_many(keys)
        cached += block_bytes * there.count(1)
    if there.endswith(b"\1"):
        # The last block ends where the object does.
        cached -= -size % block_bytes
    return cached
