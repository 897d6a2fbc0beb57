"""Metadata: the catalog of attached datasets and the entries known of them, in LMDB beside the store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Self

from forebay.clock import boot_id
from forebay.config import GIB
from forebay.errors import ConfigError
from forebay.meta.catalog import Catalog, Dataset
from forebay.meta.entries import Entries, Entry
from forebay.meta.environment import Environment

__all__ = ["Catalog", "Dataset", "Entries", "Entry", "Metadata"]

_CATALOG: Final = "catalog.lmdb"
_CATALOG_MAP_BYTES: Final = GIB
_ENTRIES_MAP_BYTES: Final = 256 * GIB
_FOLDER_MODE: Final = 0o700
_SHARED_FOLDER_MODE: Final = 0o2770


class Metadata:
    """Both environments of one folder, for the process that made it; a context manager. Threads: any."""

    catalog: Final[Catalog]
    entries: Final[Entries]

    def __init__(
        self, folder: str | os.PathLike[str], *, shared_group: int | None = None, read_only: bool = False
    ) -> None:
        """Open, and make what is missing.

        Entries are not synced, so a file of theirs is good for one boot: the boot's id is in its name, and
        files of earlier boots are removed without a look inside. Raises: ConfigError (names the file and
        the cause).
        """
        place = Path(folder)
        try:
            if not read_only:
                _make_folder(place, shared_group)
            entries_name = f"entries-{boot_id()}.lmdb"
            if not read_only:
                _remove_earlier_boots(place, entries_name)
        except OSError as error:
            raise ConfigError(f"{place}: {error.strerror}") from error
        self._catalog_environment: Final = Environment(
            str(place / _CATALOG),
            map_bytes=_CATALOG_MAP_BYTES,
            durable=True,
            shared_group=shared_group,
            read_only=read_only,
        )
        try:
            self._entries_environment: Final = Environment(
                str(place / entries_name),
                map_bytes=_ENTRIES_MAP_BYTES,
                durable=False,
                shared_group=shared_group,
                read_only=read_only,
            )
        except BaseException:
            self._catalog_environment.close()
            raise
        self.catalog = Catalog(self._catalog_environment)
        self.entries = Entries(self._entries_environment, read_only=read_only)

    def close(self) -> None:
        """Close both; may be called twice."""
        self._entries_environment.close()
        self._catalog_environment.close()

    def __enter__(self) -> Self:
        """Return this metadata."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()


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
