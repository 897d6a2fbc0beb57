"""Directories that are deleted or renamed object by object, where that is not one act of the storage.

Each object is deleted or renamed as a whole; the directory is not. Whoever is interrupted may do the same
again: what is done already is no longer found.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from forebay.cache.datasets import Attached
from forebay.cache.writes.write import Writes
from forebay.errors import NotFound

_AT_ONCE: Final = 16


def delete_tree(writes: Writes, attached: Attached, path: str) -> None:
    """Remove an object, or a directory and all below it. Raises: as Writes.delete."""
    writes.writer(attached, path)
    if not attached.storage.stat(path).is_dir:
        writes.delete(attached, path)
        return
    _for_each_below(attached, path, lambda each: writes.delete(attached, each))
    _clear(writes, attached, path, None)


def rename_tree(writes: Writes, attached: Attached, path: str, target: str) -> None:
    """Rename an object, or a directory and all below it. Raises: as Writes.rename; NotADirectoryError."""
    writes.writer(attached, path)
    if path == target:
        attached.storage.stat(path)
        return
    try:
        writes.rename(attached, path, target)
        return
    except IsADirectoryError:
        if not attached.storage.stat(path).is_dir:
            # It is the target that is one.
            raise
    with suppress(NotFound):
        if not attached.storage.stat(target).is_dir:
            name = f"{attached.record.name}/{target}"
            raise NotADirectoryError(errno.ENOTDIR, "is an object, not a directory", name)
    _for_each_below(
        attached, path, lambda each: writes.rename(attached, each, f"{target}{each[len(path) :]}")
    )
    _clear(writes, attached, path, target)


def _for_each_below(attached: Attached, path: str, act: Callable[[str], None]) -> None:
    """Do it to every object below a directory, side by side, until none is left.

    Raises: what the first in order raised that failed; those of its page have ended.
    """

    def act_if_there(each: str) -> None:
        with suppress(NotFound):
            act(each)

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="forebay-tree") as threads:
        is_any_left = True
        while is_any_left:
            # Listing what is changed meanwhile may leave something out.
            is_any_left = False
            with suppress(NotFound):
                for page in attached.storage.walk(path):
                    is_any_left = is_any_left or bool(page)
                    list(threads.map(act_if_there, [info.path for info in page]))


def _clear(writes: Writes, attached: Attached, path: str, target: str | None) -> None:
    """Remove the directories that are left without objects, and make those below target, if there is one."""
    try:
        below = [info.path for page in attached.storage.list(path) for info in page if info.is_dir]
    except NotFound:
        # It has gone with its last object.
        return
    for each in below:
        _clear(writes, attached, each, None if target is None else f"{target}{each[len(path) :]}")
    if target is not None:
        writes.mkdir(attached, target)
    with suppress(NotFound):
        writes.delete(attached, path)
