"""What the entries are told of a write, so that every process of the host sees it at once.

Each is told with the time after the under storage has answered: what was asked before, and came later, gives
way to it. The caller holds the path meanwhile, so no other writer of this host is between answer and note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from forebay.cache.datasets import Attached
from forebay.cache.lookup import Lookup
from forebay.meta import Entries, Entry


class Knowledge:
    """Tells the entries, for one process. Threads: any."""

    def __init__(self, entries: Entries, lookup: Lookup, on_stale: Callable[[], None]) -> None:
        """Use these; on_stale is called when versions have become stale, whose blocks are to go."""
        self._entries: Final = entries
        self._lookup: Final = lookup
        self._on_stale: Final = on_stale
        # Whether something is in doubt: its blocks are stale, and what is written next replaces nothing.
        self._has_doubts = False

    def written(self, attached: Attached, entry: Entry) -> bool:
        """Note what an object is now; return whether that is remembered.

        If it is not, what is known of it may be wrong, and nobody would notice.
        """
        if attached.storage.has_directories:
            # They have times of their own, so the storage is asked.
            self.made(attached, entry.path.rpartition("/")[0])
            written = self._entries.put(attached.record.id, [entry])
        else:
            written = self._entries.put_with_above(attached.record.id, entry)
        if written.replaced or self._has_doubts:
            self._has_doubts = False
            self._on_stale()
        return written.complete

    def made(self, attached: Attached, directory: str) -> None:
        """Note that a directory is there now, and those above it."""
        for each in self._unknown_above(attached, f"{directory}/"):
            self._lookup.learn(attached, each)

    def removed(self, attached: Attached, path: str, asked_ns: int) -> None:
        """Note that there was no such object, or empty directory, at asked_ns."""
        record = attached.record
        may_stay = not attached.storage.has_directories and (
            record.negative_ttl > 0 or bool(self._entries.children(record.id, path))
        )
        if may_stay:
            # What is below an object's path makes it a directory's as well.
            self._lookup.forget(attached, path)
            self._lookup.learn(attached, path)
        elif self._entries.note_absent(record.id, path, asked_ns):
            self._on_stale()
        self._doubt_emptied(attached, path)

    def gone(self, attached: Attached, directory: str, asked_ns: int) -> None:
        """Note that there was no such directory at asked_ns, and nothing below it."""
        self._entries.void(attached.record.id, directory, asked_ns)
        self._entries.note_absent(attached.record.id, directory, asked_ns)
        self._on_stale()
        self._doubt_emptied(attached, directory)

    def doubt(self, attached: Attached, paths: Iterable[str], *, trees: bool) -> None:
        """Forget what is known of paths that a write may have changed."""
        doubt(self._entries, attached.record.id, paths, self._lookup.now_ns() if trees else None)
        self._has_doubts = True

    def _doubt_emptied(self, attached: Attached, path: str) -> None:
        """Forget the directories above in which nothing is known any more: they may have gone as well.

        Not where they are things of their own, and stay, with the numbers by which others have them open.
        """
        if attached.storage.has_directories:
            return
        dataset_id, directory = attached.record.id, _above(path)
        while directory and not self._entries.children(dataset_id, directory):
            known = self._entries.get(dataset_id, directory, directories=True)
            # An object of that name is none of this.
            if known is None or known.is_dir:
                self._entries.forget(dataset_id, directory)
            for each in (directory, _above(directory)):
                self._entries.forget_listing(dataset_id, each)
            directory = _above(directory)

    def _unknown_above(self, attached: Attached, path: str) -> Iterator[str]:
        """Yield the directories above a path, the lowest first, up to one that is known to be there."""
        directory = _above(path)
        while directory:
            known = self._entries.get(attached.record.id, directory, directories=True)
            if known is not None and known.is_dir:
                return
            yield directory
            directory = _above(directory)


def doubt(entries: Entries, dataset_id: int, paths: Iterable[str], trees_ns: int | None) -> None:
    """Forget what is known of paths, and that the directories above were listed as a whole.

    With trees_ns, all that was known below them by then as well. Should an object turn out to be as it was
    before anybody reclaims its blocks, they are good again: nobody is told to.
    """
    for path in paths:
        if trees_ns is not None:
            entries.void(dataset_id, path, trees_ns)
        entries.forget(dataset_id, path)
        directory = path
        while directory:
            directory = _above(directory)
            entries.forget_listing(dataset_id, directory)


def _above(path: str) -> str:
    return path.rpartition("/")[0]
