"""The files of manifests: where they lie, opening them, beginning new ones, removing what is nobody's.

    meta/manifests/<dataset id>/<number>-<version>.lmdb    what it lists
                                <number>-<version>.order   the order of access, one JSON text a line

A number is given once, so no file ever takes the name of another: whoever has one open reads on in it, also
after it was deleted.
"""

from __future__ import annotations

import json
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from forebay.errors import ConfigError
from forebay.meta.environment import Environment
from forebay.meta.held import HeldLock
from forebay.meta.manifest import StoredManifest
from forebay.meta.manifest_build import (
    FILE_SUFFIX,
    ManifestBuilder,
    make_folder,
    order_path_of,
    remove_files,
    try_lock,
)
from forebay.meta.manifest_record import ManifestRecord
from forebay.meta.repair import is_truncated

_FILE_NAME: Final = re.compile(r"([0-9]{1,10})-[^/]+")


class ManifestFiles:
    """The manifests' files of one cache directory, for the process that made it. Threads: any."""

    def __init__(self, folder: Path, shared_group: int | None = None) -> None:
        """Name the folder, which is made when there is something to be put into it."""
        self._folder: Final = folder
        self._shared_group: Final = shared_group
        self._lock: Final = threading.Lock()
        self._open: Final[weakref.WeakValueDictionary[int, StoredManifest]] = weakref.WeakValueDictionary()
        self._environments: Final[set[Environment]] = set()
        # Of manifests that nobody uses any more. A finalizer may run in the middle of anything, so all that
        # it does is to note them.
        self._unused: Final[list[Environment]] = []

    def open(self, record: ManifestRecord) -> StoredManifest:
        """Open a manifest, or share what is open of it; it is closed some time after the last user let go.

        Raises: FileNotFoundError (it was deleted meanwhile); ConfigError (it cannot be opened).
        """
        with self._lock:
            while self._unused:
                environment = self._unused.pop()
                self._environments.discard(environment)
                environment.close()
            manifest = self._open.get(record.number)
            if manifest is None:
                manifest = self._open_anew(record)
                self._open[record.number] = manifest
            return manifest

    def _open_anew(self, record: ManifestRecord) -> StoredManifest:
        path = self._path_of(record)
        cure = f"use another version than {record.version!r}, or make it anew"
        if is_truncated(path):
            raise ConfigError(f"{path}: truncated; {cure}")
        try:
            environment = Environment(str(path), map_bytes=path.stat().st_size, durable=False, read_only=True)
        except ConfigError as error:
            raise ConfigError(f"{error}; {cure}") from error
        manifest = StoredManifest(environment, record, str(path))
        self._environments.add(environment)
        weakref.finalize(manifest, self._unused.append, environment).atexit = False
        return manifest

    def build(self, draft: ManifestRecord) -> ManifestBuilder:
        """Begin a manifest under a number that no other has. Raises: OSError."""
        make_folder(self._folder, self._shared_group)
        return ManifestBuilder(self._path_of(draft), draft.dataset_id, draft.number, self._shared_group)

    def order(self, record: ManifestRecord) -> Iterator[str]:
        """Yield the paths of a manifest in the order of access.

        Raises while it is iterated: OSError; ConfigError (it is damaged).
        """
        path = order_path_of(self._path_of(record))
        count = 0
        with open(path, encoding="ascii", errors="replace") as lines:
            for count, line in enumerate(lines, 1):
                name = _name_in(line)
                if name is None:
                    raise ConfigError(f"{path}: line {count} is damaged; make the manifest anew")
                yield name
        if count != record.objects:
            raise ConfigError(f"{path}: has {count} of {record.objects} lines; make the manifest anew")

    def remove(self, record: ManifestRecord) -> None:
        """Remove the files of a manifest; what is gone already is no error."""
        path = self._path_of(record)
        remove_files(path)
        with suppress(OSError):
            path.parent.rmdir()

    def sweep(self, names: Callable[[], set[str]]) -> None:
        """Remove files that are no manifest's and that nobody builds.

        names gives the file names of all manifests, as the catalog has them when it is called. Raises:
        OSError.
        """
        for path, lock in self._unowned(names):
            with lock:
                remove_files(path)
            with suppress(OSError):
                path.parent.rmdir()

    def has_unowned(self, names: Callable[[], set[str]]) -> bool:
        """Say whether ``sweep`` would find something to remove. Raises: OSError."""
        for _, lock in self._unowned(names):
            lock.release()
            return True
        return False

    def _unowned(self, names: Callable[[], set[str]]) -> Iterator[tuple[Path, HeldLock]]:
        """Yield files that are no manifest's, each with the lock that nobody else holds."""
        found = list(self._found())
        kept = names() if found else set()
        for path in found:
            if path.stem in kept or (lock := try_lock(path)) is None:
                continue
            # Whoever built it may have ended just now.
            if path.stem in names():
                lock.release()
            else:
                yield path, lock

    def _found(self) -> Iterator[Path]:
        folders = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        for folder in folders:
            with suppress(FileNotFoundError, NotADirectoryError):
                for path in sorted(folder.iterdir()):
                    if path.suffix == FILE_SUFFIX and _FILE_NAME.fullmatch(path.name):
                        yield path

    def close(self) -> None:
        """Close everything that is open."""
        with self._lock:
            for environment in self._environments:
                environment.close()
            self._environments.clear()

    def _path_of(self, record: ManifestRecord) -> Path:
        return self._folder / str(record.dataset_id) / f"{record.file_name}{FILE_SUFFIX}"


def _name_in(line: str) -> str | None:
    if not line.endswith("\n"):
        return None
    try:
        name = json.loads(line)
    except ValueError:
        return None
    return name if isinstance(name, str) else None
