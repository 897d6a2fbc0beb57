"""A dict that answers as the entries do: what is known, what is void, listed, absent and stale.

Rows that are void stay until they are swept or replaced, as they do in the entries, for that is when their
versions become stale.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from forebay.meta import Entry, StaleObject

Key = tuple[str, bool]


@dataclass
class DatasetModel:
    """One dataset; same_hash maps a directory to the one whose hash it shares."""

    dataset_id: int
    same_hash: dict[str, str]
    rows: dict[Key, Entry] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    void_ns: dict[str, int] = field(default_factory=dict)
    listed_ns: dict[str, int] = field(default_factory=dict)
    absent_ns: dict[str, int] = field(default_factory=dict)
    stale: dict[tuple[str, str], StaleObject] = field(default_factory=dict)

    def is_known(self, directory: str) -> bool:
        """Say whether the directory has its row."""
        return self.owners.get(self._slot(directory)) == directory

    def make(self, directory: str) -> bool:
        """Give the directory its row unless another has its place; say whether it has it."""
        return self.owners.setdefault(self._slot(directory), directory) == directory

    def get(self, path: str, directories: bool = True) -> Entry | None:
        """Return what is known of a path."""
        kinds = (False, True) if directories else (False,)
        found = (self.rows.get((path, is_dir)) for is_dir in kinds)
        return next((entry for entry in found if entry is not None and self._is_visible(entry)), None)

    def children(self, directory: str) -> list[Entry]:
        """Return what is known in a directory, in the order of paths."""
        found = [e for e in self.rows.values() if _parent(e.path) == directory and self._is_visible(e)]
        return sorted(found, key=lambda entry: (entry.path, entry.is_dir))

    def put(self, entries: Iterable[Entry]) -> bool:
        """Remember entries; return whether all were."""
        complete = True
        wanted: dict[Key, Entry] = {}
        for entry in entries:
            key, parent = (entry.path, entry.is_dir), _parent(entry.path)
            if not self.make(parent):
                complete = False
            elif entry.checked_ns < max(self.void_ns.get(parent, 0), self.absent_ns.get(entry.path, 0)):
                continue
            elif key not in wanted or wanted[key].checked_ns <= entry.checked_ns:
                wanted[key] = entry
        for key, entry in wanted.items():
            self._put_one(key, entry)
        return complete

    def forget(self, path: str) -> None:
        """Forget a path."""
        for is_dir in (False, True):
            if (path, is_dir) in self.rows:
                self._remove((path, is_dir))
        self.absent_ns.pop(path, None)

    def drop(self, paths: Iterable[str]) -> None:
        """Forget paths, whose versions do not become stale by that."""
        before = dict(self.stale)
        for path in paths:
            self.forget(path)
        self.stale = before

    def note_absent(self, path: str, asked_ns: int) -> None:
        """Remember that there is nothing."""
        known = [(path, is_dir) for is_dir in (False, True) if (path, is_dir) in self.rows]
        for key in known:
            if self.rows[key].checked_ns < asked_ns:
                self._remove(key)
        if any(key in self.rows for key in known):
            return
        if self.is_known(path) and self.void_ns.get(path, 0) < asked_ns:
            self.void_ns[path], self.listed_ns[path] = asked_ns, 0
        self.absent_ns[path] = max(asked_ns, self.absent_ns.get(path, 0))

    def finish_listing(self, directory: str, started_ns: int) -> None:
        """Drop what a listing did not show."""
        if self.make(directory):
            self._sweep(directory, started_ns, started_ns)

    def _sweep(self, directory: str, before_ns: int, listed_ns: int) -> None:
        if self.void_ns.get(directory, 0) >= before_ns:
            return
        self.void_ns[directory], self.listed_ns[directory] = before_ns, listed_ns
        for key in list(self.rows):
            if _parent(key[0]) == directory and self.rows[key].checked_ns < before_ns:
                self._remove(key)
                if key[1] and self.is_known(key[0]):
                    self._sweep(key[0], before_ns, 0)

    def _put_one(self, key: Key, entry: Entry) -> None:
        known = self.rows.get(key)
        if known is not None and not self._is_visible(known):
            self._remove(key)
            known = None
        if known is not None and known.checked_ns > entry.checked_ns:
            return
        self.rows[key] = entry
        if known is None:
            self.absent_ns.pop(entry.path, None)
        if not entry.is_dir and (known is None or known.version != entry.version):
            if known is not None:
                self._note_stale(known)
            self.stale.pop((entry.path, entry.version), None)

    def _remove(self, key: Key) -> None:
        entry = self.rows.pop(key)
        if not entry.is_dir:
            self._note_stale(entry)
        elif self.is_known(entry.path):
            self.listed_ns[entry.path] = 0

    def _note_stale(self, entry: Entry) -> None:
        found = StaleObject(self.dataset_id, entry.path, entry.version, entry.size)
        self.stale.setdefault((entry.path, entry.version), found)

    def _is_visible(self, entry: Entry) -> bool:
        return entry.checked_ns >= self.void_ns.get(_parent(entry.path), 0)

    def _slot(self, directory: str) -> str:
        return self.same_hash.get(directory, directory)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]
