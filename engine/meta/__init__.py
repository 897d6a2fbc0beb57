"""Metadata: attached datasets, the entries known of them, and their manifests, in LMDB beside the store."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Self

from forebay.config import GIB, check_platform

check_platform()

from forebay.clock import boot_id  # noqa: E402
from forebay.errors import ConfigError  # noqa: E402
from forebay.meta._recent import ChangeCounter, Known, Recent  # noqa: E402
from forebay.meta._rows import entries_of  # noqa: E402
from forebay.meta.catalog import Catalog, Contents, Dataset, cure  # noqa: E402
from forebay.meta.changes import Changes  # noqa: E402
from forebay.meta.entries import Entries, Seen, Written  # noqa: E402
from forebay.meta.environment import Environment  # noqa: E402
from forebay.meta.held import HeldLock  # noqa: E402
from forebay.meta.manifest import EmptyManifest, Manifest  # noqa: E402
from forebay.meta.manifest_build import ManifestBuilder  # noqa: E402
from forebay.meta.manifest_files import ManifestFiles  # noqa: E402
from forebay.meta.manifest_record import ManifestRecord, manifest_of_inode  # noqa: E402
from forebay.meta.read import Listing, Names  # noqa: E402
from forebay.meta.repair import fill_up, is_truncated, remove_same, remove_unreadable  # noqa: E402
from forebay.meta.rows import Entry  # noqa: E402
from forebay.meta.stale import StaleObject  # noqa: E402
from forebay.meta.versions import Versions, find_version, not_attached, refuse_existing  # noqa: E402

__all__ = [
    "Catalog",
    "ChangeCounter",
    "Contents",
    "Dataset",
    "EmptyManifest",
    "Entries",
    "Entry",
    "HeldLock",
    "Known",
    "Listing",
    "Manifest",
    "ManifestBuilder",
    "ManifestFiles",
    "ManifestRecord",
    "Metadata",
    "Names",
    "Recent",
    "Seen",
    "StaleObject",
    "Versions",
    "Written",
    "entries_of",
    "find_version",
    "manifest_of_inode",
    "not_attached",
    "refuse_existing",
]

_CATALOG: Final = "catalog.lmdb"
_CATALOG_MAP_BYTES: Final = GIB
_ENTRIES_MAP_BYTES: Final = 256 * GIB
_MANIFESTS: Final = "manifests"
_FOLDER_MODE: Final = 0o700
_SHARED_FOLDER_MODE: Final = 0o2770


class Metadata:
    """All metadata in one folder, for the process that made it; a context manager. Threads: any."""

    catalog: Final[Catalog]
    entries: Final[Entries]
    versions: Final[Versions]
    manifests: Final[ManifestFiles]

    def __init__(
        self, folder: str | os.PathLike[str], *, shared_group: int | None = None, read_only: bool = False
    ) -> None:
        """Open, and make what is missing.

        Entries are not synced, so a file of theirs is good for one boot: the boot's id is in its name, and
        files of earlier boots are removed without a look inside. Raises: ConfigError (names the file and
        the cause).
        """
        place = Path(folder)
        entries_name = f"entries-{boot_id()}.lmdb"
        open_environment = partial(Environment, shared_group=shared_group, read_only=read_only)
        with ExitStack() as opened:
            if read_only:
                _refuse_truncated(place / _CATALOG, place / entries_name)
            else:
                _prepare(place, entries_name, shared_group)
                _mend(place / _CATALOG, place / entries_name)
            try:
                catalog = opened.enter_context(
                    open_environment(str(place / _CATALOG), map_bytes=_CATALOG_MAP_BYTES, durable=True)
                )
            except ConfigError as error:
                raise ConfigError(f"{error}; if it is damaged, {cure(str(place / _CATALOG))}") from error
            entries = opened.enter_context(
                open_environment(str(place / entries_name), map_bytes=_ENTRIES_MAP_BYTES, durable=False)
            )
            try:
                entries_status = os.stat(place / entries_name)
                changes = Changes(place / f"{entries_name}.changes", shared_group, read_only=read_only)
            except OSError as error:
                raise ConfigError(f"{place / entries_name}.changes: {error.strerror}") from error
            self.manifests = ManifestFiles(place / _MANIFESTS, shared_group)
            opened.callback(self.manifests.close)
            self._opened: Final = opened.pop_all()
        self.catalog = Catalog(catalog, place / _CATALOG)
        on_damage = partial(remove_same, place / entries_name, entries_status)
        self.entries = Entries(entries, changes, read_only=read_only, on_damage=on_damage)
        self.versions = Versions(self.catalog, self.entries)

    def close(self) -> None:
        """Close everything; may be called twice."""
        self._opened.close()

    def __enter__(self) -> Self:
        """Return this metadata."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


def _prepare(folder: Path, entries_name: str, shared_group: int | None) -> None:
    """Make the folder if need be, and clear what earlier boots left."""
    try:
        _make_folder(folder, shared_group)
        _remove_earlier_boots(folder, entries_name)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from error


def _mend(catalog: Path, entries: Path) -> None:
    """See to it that no damage is found only when it is too late for an error; entries are no loss."""
    try:
        remove_unreadable(entries)
        for path in (catalog, entries):
            fill_up(path)
    except OSError as error:
        raise ConfigError(f"{error.filename or catalog.parent}: {error.strerror}") from error


def _refuse_truncated(*paths: Path) -> None:
    """Refuse files that only a process that may write can mend."""
    for path in paths:
        try:
            truncated = is_truncated(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be opened: {error.strerror}") from error
        if truncated:
            raise ConfigError(f"{path}: truncated; open the cache once with the right to write")


def _make_folder(folder: Path, shared_group: int | None) -> None:
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True)
    except FileExistsError:
        return
    if shared_group is not None:
        os.chown(folder, -1, shared_group)
        folder.chmod(_SHARED_FOLDER_MODE)


def _remove_earlier_boots(folder: Path, current: str) -> None:
    for path in folder.glob("entries-*.lmdb*"):
        if not path.name.startswith(current):
            path.unlink(missing_ok=True)
