"""The remote as the parts of a cache use it: asked by dataset, counted, and believed only so far.

That an object is not there is believed, for an owner has asked the under storage. Whatever else goes wrong
with a peer, or it says of an error of the source, is as good as no answer: the source is asked itself. So
is an answer that no source gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, cast

from forebay.cache.datasets import Attached
from forebay.cache.policies.rules import NO_RULES
from forebay.errors import NotFound
from forebay.meta import Dataset, Entry
from forebay.remote import PLACEMENT_BYTES, LocalCopy, NoRemote, Remote, RemoteObject

if TYPE_CHECKING:
    from forebay.store import BlockStore

_T = TypeVar("_T")

# Sizes are offsets in files.
_SIZE_MAX: Final = (1 << 63) - 1


class Peers:
    """Who else answers for what a dataset has. Threads: any."""

    def __init__(self, remote: Remote, store: BlockStore) -> None:
        """Use this remote, and count in this store."""
        self.remote: Final = remote
        # Whether there are any at all: where there are none nothing is asked of them.
        self.any: Final = type(remote) is not NoRemote
        self._store: Final = store

    def answer_for(self, attached: Attached, path: str, offset: int) -> bool:
        """Say whether peers are asked for what lies there before the under storage."""
        if not self.any:
            return False
        return self.remote.is_elsewhere(attached.record.name, path, offset, replicas_of(attached, path))

    def local_copy(self, attached: Attached, path: str, offset: int) -> LocalCopy:
        """Say whether this host keeps what lies there: always where it answers for it itself."""
        return self.copies_of(attached.record) if self.answer_for(attached, path, offset) else "always"

    def local_copy_of_file(self, attached: Attached, path: str, size_bytes: int) -> LocalCopy:
        """Say whether this host keeps all of a file: always where it answers for every piece."""
        if not self.any or self.copies_of(attached.record) == "always":
            return "always"
        offsets = range(0, max(size_bytes, 1), PLACEMENT_BYTES)
        is_shared = any(self.answer_for(attached, path, offset) for offset in offsets)
        return self.copies_of(attached.record) if is_shared else "always"

    def keep_alone(self, attached: Attached, path: str, offset: int) -> bool:
        """Say whether peers keep what lies there, and this host never does."""
        return self.any and self.local_copy(attached, path, offset) == "never"

    def copies_of(self, record: Dataset) -> LocalCopy:
        """Say what this host keeps of what peers answer for."""
        return self.remote.local_copy if record.local_copy is None else cast(LocalCopy, record.local_copy)

    def touch(
        self, attached: Attached, path: str, offset: int, length: int
    ) -> tuple[RemoteObject, memoryview] | None:
        """Return what an unknown object is, and its first bytes; None: the under storage is to be asked.

        offset is that of a block; what comes ends before the next peer's piece. Raises: NotFound.
        """
        if not self.answer_for(attached, path, offset):
            return None
        length = min(length, PLACEMENT_BYTES - offset % PLACEMENT_BYTES)
        name = attached.record.name
        found = self._asked(attached, lambda: self.remote.touch(name, path, offset, length))
        if found is None or found[0].path != path or found[0].is_dir or not _is_sound(found[0]):
            return None
        return found if len(found[1]) <= min(length, max(found[0].size - offset, 0)) else None

    def stat(self, attached: Attached, path: str) -> RemoteObject | None:
        """Describe an object or a directory; None: the under storage is to be asked. Raises: NotFound."""
        if not self.answer_for(attached, path, 0):
            return None
        found = self._asked(attached, lambda: self.remote.stat(attached.record.name, path))
        return found if found is not None and found.path == path and _is_sound(found) else None

    def list(self, attached: Attached, directory: str) -> list[RemoteObject] | None:
        """Return what lies in a directory; None: the under storage is to be asked. Raises: NotFound."""
        if not self.answer_for(attached, directory, 0):
            return None

        def read() -> list[RemoteObject] | None:
            pages = self.remote.list(attached.record.name, directory)
            return None if pages is None else [found for page in pages for found in page]

        said = self._asked(attached, read)
        if said is None or not all(_is_sound(found) and _is_in(directory, found.path) for found in said):
            return None
        return said

    def _asked(self, attached: Attached, ask: Callable[[], _T | None]) -> _T | None:
        self._store.count("peer_requests", 1, attached.record.id)
        try:
            return ask()
        except NotFound:
            raise
        except OSError:
            # Said of the source, or the rest of an answer that did not come.
            return None


def replicas_of(attached: Attached, path: str) -> int:
    """Return on how many members the blocks of a path are to lie."""
    return 1 if attached.rules is NO_RULES else attached.rules.of(path).replicas


def entry_of(found: RemoteObject, asked_ns: int) -> Entry:
    """Make an entry of a peer's answer; asked_ns was taken before it was asked."""
    checked_ns = max(asked_ns - max(found.age_ns, 0), 0)
    return Entry(found.path, found.size, found.mtime_ns, found.version, found.is_dir, checked_ns)


def _is_sound(found: RemoteObject) -> bool:
    """Say whether there can be such an object; one without a version would be one that is not known."""
    return found.size <= _SIZE_MAX and (found.is_dir or found.version != "")


def _is_in(directory: str, path: str) -> bool:
    """Say whether a path is that of a child of a directory."""
    parent, _, name = path.rpartition("/")
    is_name = name not in ("", ".", "..") and "\0" not in name
    return is_name and parent == directory and not path.startswith("/")
