"""Metadata: the catalog of attached datasets and the entries known of them, in LMDB beside the store."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
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
        entries_name = f"entries-{boot_id()}.lmdb"
        open_environment = partial(Environment, shared_group=shared_group, read_only=read_only)
        with ExitStack() as opened:
            if not read_only:
                _prepare(place, entries_name, shared_group)
            catalog = opened.enter_context(
                open_environment(str(place / _CATALOG), map_bytes=_CATALOG_MAP_BYTES, durable=True)
            )
            entries = opened.enter_context(
                open_environment(str(place / entries_name), map_bytes=_ENTRIES_MAP_BYTES, durable=False)
            )
            self._opened: Final = opened.pop_all()
        self.catalog = Catalog(catalog)
        self.entries = Entries(entries, read_only=read_only)

    def close(self) -> None:
        """Close both; may be called twice."""
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
