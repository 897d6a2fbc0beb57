"""What manifests list: cached bytes that they need are not reclaimed, though the source has newer ones."""

from __future__ import annotations

import logging
from typing import Final

from forebay.errors import ConfigError
from forebay.meta import Manifest, ManifestFiles, Versions

_log = logging.getLogger(__name__)


class Listed:
    """The manifests as they are when they are asked for first, open for as long as this lives.

    For one thread, and for the length of one piece of work.
    """

    def __init__(self, versions: Versions, files: ManifestFiles) -> None:
        """Open nothing yet."""
        self._versions: Final = versions
        self._files: Final = files
        # None: one of them cannot be read.
        self._manifests: Final[dict[int, list[Manifest] | None]] = {}

    def has(self, dataset_id: int, path: str, version: str) -> bool:
        """Say whether a manifest lists this version of an object; if one cannot be read, it may."""
        if dataset_id not in self._manifests:
            self._manifests[dataset_id] = self._opened(dataset_id)
        manifests = self._manifests[dataset_id]
        if manifests is None:
            return True
        try:
            return any(_lists(manifest, path, version) for manifest in manifests)
        except OSError as error:
            return self._unreadable(dataset_id, error)

    def _opened(self, dataset_id: int) -> list[Manifest] | None:
        found: list[Manifest] = []
        for record in self._versions.of(dataset_id).values():
            try:
                found.append(self._files.open(record))
            except FileNotFoundError:
                # Deleted just now.
                continue
            except (ConfigError, OSError) as error:
                self._unreadable(dataset_id, error)
                return None
        return found

    def _unreadable(self, dataset_id: int, error: Exception) -> bool:
        _log.warning("%s; old versions are not reclaimed meanwhile", error)
        self._manifests[dataset_id] = None
        return True


def _lists(manifest: Manifest, path: str, version: str) -> bool:
    entry = manifest.find(path)
    return entry is not None and not entry.is_dir and entry.version == version
