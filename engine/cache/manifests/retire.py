"""Manifests that were deleted: first their blocks go, then their files, last their rows.

In that order, so that whoever is killed leaves a row that says what is still to be done. Blocks stay that
another manifest lists, and where the dataset shows what the under storage has, those of the versions that it
was last seen to have.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from forebay.cache.manifests.listed import Listed
from forebay.cache.paths import block_keys
from forebay.cache.reclaim import Reclaimer
from forebay.errors import ConfigError
from forebay.meta import Entries, Entry, ManifestFiles, ManifestRecord, Versions

if TYPE_CHECKING:
    from forebay.store import BlockStore

_log = logging.getLogger(__name__)


class Retirement:
    """Takes away what is left of manifests, for one process. Threads: any; others may do the same.

    Everything raises StoreBusy, PermissionError and OSError.
    """

    def __init__(
        self,
        store: BlockStore,
        entries: Entries,
        versions: Versions,
        files: ManifestFiles,
        reclaimer: Reclaimer,
    ) -> None:
        """Use these, all of one process."""
        self._store: Final = store
        self._entries: Final = entries
        self._versions: Final = versions
        self._files: Final = files
        self._reclaimer: Final = reclaimer

    @property
    def is_due(self) -> bool:
        """Whether something is left by a process that was killed. Raises: OSError."""
        return bool(self._versions.deleted()) or self._files.has_unowned(self._versions.file_names)

    def run(self) -> None:
        """Take away all that is left of manifests."""
        for record in self._versions.deleted():
            self.retire(record)
        self.sweep()

    def sweep(self) -> None:
        """Remove files that are no manifest's: of detached datasets, and what killed processes left."""
        self._files.sweep(self._versions.file_names)

    def retire(self, record: ManifestRecord) -> None:
        """Take away what is left of one manifest that was deleted."""
        for page in self._pages(record):
            self._drop(record.dataset_id, page)
        self._files.remove(record)
        self._versions.remove(record)

    def _pages(self, record: ManifestRecord) -> Iterator[Sequence[Entry]]:
        try:
            yield from self._files.open(record).pages("")
        except FileNotFoundError:
            # Somebody else has come so far already.
            return
        except (ConfigError, OSError) as error:
            _log.warning("%s; what it alone lists stays cached until it is evicted", error)

    def _drop(self, dataset_id: int, page: Sequence[Entry]) -> None:
        """Drop blocks that nothing else needs."""
        listed = Listed(self._versions, self._files)
        shows_live = self._versions.shows_live(dataset_id)
        unneeded: list[Entry] = []
        for entry in page:
            if not self._is_cached(dataset_id, entry):
                continue
            is_shown = shows_live and self._is_known(dataset_id, entry)
            if not is_shown and not listed.has(dataset_id, entry.path, entry.version):
                unneeded.append(entry)
        self._reclaimer.drop(dataset_id, unneeded)

    def _is_known(self, dataset_id: int, entry: Entry) -> bool:
        known = self._entries.get(dataset_id, entry.path)
        return known is not None and known.version == entry.version

    def _is_cached(self, dataset_id: int, entry: Entry) -> bool:
        """Say whether anything of it is: looking is cheap, and most is not of what is deleted."""
        versions = [(entry.path, entry.version, entry.size)]
        keys_of_blocks = block_keys(dataset_id, versions, self._store.block_bytes)
        return any(1 in self._store.contains_many(keys) for keys in keys_of_blocks)
