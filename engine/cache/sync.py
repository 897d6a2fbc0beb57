"""Asking anew for all that lies at or below a path, and what has become different by it."""

from __future__ import annotations

from typing import Final

from forebay.cache.datasets import Attached
from forebay.cache.lookup import Lookup
from forebay.cache.status import SyncReport
from forebay.errors import NotFound
from forebay.meta import Entries


class Sync:
    """For one process. Threads: any."""

    def __init__(self, entries: Entries, lookup: Lookup) -> None:
        """Use these, who raise where something is not remembered."""
        self._entries: Final = entries.strict()
        self._lookup: Final = lookup.strict()

    def run(self, attached: Attached, path: str) -> SyncReport:
        """Ask now for all that is known, fresh or not, of an object or of a directory and all below it.

        Raises: as UnderStorage.stat and list, and ``Entries.strict``; what was learnt until then is
        remembered.
        """
        dataset_id = attached.record.id
        if path:
            before = self._entries.get(dataset_id, path)
            try:
                now = self._lookup.ask(attached, path)
            except NotFound:
                if before is None:
                    raise
                return SyncReport(removed=1)
            if not now.is_dir:
                changed = before is not None and before.version != now.version
                return SyncReport(added=before is None, changed=changed)
        known_before = self._count_known(dataset_id, path)
        report, directories = SyncReport(), [path]
        seen: set[str] = set()
        while directories:
            directory = directories.pop()
            seen.add(directory)
            found, below = self._directory(attached, directory)
            report += found
            directories += below
            if not directories:
                # Where nothing was listed before: directories that are known by what was read in them.
                known = self._entries.known_directories(dataset_id, path)
                directories = [each for each in known if each not in seen]
        # Told by the figures: what lay below a directory that is gone goes with it, uncounted.
        removed = known_before + report.added - self._count_known(dataset_id, path)
        return report + SyncReport(removed=max(removed, 0))

    def _directory(self, attached: Attached, directory: str) -> tuple[SyncReport, list[str]]:
        """List a directory; return what is new or has changed in it, and the directories in it."""
        known = self._entries.children(attached.record.id, directory)
        before = {entry.path: entry for entry in known if not entry.is_dir}
        try:
            now = self._lookup.relist(attached, directory)
        except NotFound:
            if not directory:
                raise
            for entry in known:
                self._lookup.forget(attached, entry.path)
            return SyncReport(), []
        report = SyncReport()
        for entry in now:
            if not entry.is_dir:
                old = before.get(entry.path)
                changed = old is not None and old.version != entry.version
                report += SyncReport(added=old is None, changed=changed)
        return report, [entry.path for entry in now if entry.is_dir]

    def _count_known(self, dataset_id: int, path: str) -> int:
        """Count the objects that are known below a directory."""
        return sum(
            sum(not entry.is_dir for entry in self._entries.children(dataset_id, directory))
            for directory in list(self._entries.known_directories(dataset_id, path))
        )
