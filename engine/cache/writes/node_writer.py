"""Changes to one dataset for frontends that keep files open, such as a mount: beside ``Nodes``.

A frontend shows its own changes at once; what it is told here is when the under storage has them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from forebay.cache.datasets import Attached
from forebay.cache.writes.draft import Base, Draft, DraftMemory
from forebay.cache.writes.staging import Staging
from forebay.cache.writes.tree import rename_tree
from forebay.cache.writes.write import Writes
from forebay.errors import NotFound


class NodeWriter:
    """Writes to one dataset, as it is attached at the moment. Threads: any.

    Every method raises PermissionError with EROFS where it is not to be written, NotAttached, Closed.
    """

    def __init__(self, writes: Writes, staging: Staging, attached: Callable[[], Attached]) -> None:
        """Use these of a process; attached returns the dataset as it is now."""
        self._writes: Final = writes
        self._staging: Final = staging
        self._attached: Final = attached
        self._memory: Final = DraftMemory()

    @property
    def keeps_directories(self) -> bool:
        """Whether a directory is a thing of its own at the under storage, which may be empty."""
        return self._attached().storage.has_directories

    def check(self) -> None:
        """See whether the dataset can be written to. Raises: PermissionError; UnderStorageError."""
        self._writes.writer(self._attached(), "")

    def draft(self, path: str, base: Base | None, *, exclusive: bool = False) -> Draft:
        """Begin to write an object, from a version of it or from nothing."""
        attached = self._attached()
        self._writes.writer(attached, path)
        return Draft(self._writes, self._memory, attached, path, base, exclusive=exclusive)

    def delete(self, path: str) -> None:
        """Remove an object or an empty directory. Raises: as ``Cache.delete``."""
        self._writes.delete(self._attached(), path)

    def mkdir(self, path: str) -> None:
        """Make a directory. Raises: as ``Cache.mkdir``."""
        self._writes.mkdir(self._attached(), path)

    def rename(self, path: str, target: str) -> None:
        """Rename an object in place of what there is. Raises: as ``Cache.rename``."""
        self._writes.rename(self._attached(), path, target)

    def refuse_full(self, path: str) -> None:
        """See that there is nothing in a directory, if there is one. Raises: OSError (ENOTEMPTY)."""
        attached = self._attached()
        try:
            is_full = any(info.path != path for page in attached.storage.list(path) for info in page)
        except NotFound:
            return
        if is_full:
            raise OSError(errno.ENOTEMPTY, "is a directory that is not empty", f"{attached.label}/{path}")

    def rename_directory(self, path: str, target: str) -> None:
        """Rename a directory, where there is none or an empty one, as ``refuse_full`` tells.

        Raises: as ``Cache.rename``; OSError (ENOTEMPTY).
        """
        rename_tree(self._writes, self._attached(), path, target)

    def room_bytes(self) -> int:
        """Return how much more may be staged. Blocking: staged files are counted."""
        return max(self._staging.bytes_max - self._staging.used_bytes(), 0)
