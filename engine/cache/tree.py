"""What is done to everything below a path: walking it, asking for it anew, freeing what is cached of it."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from forebay.cache.admission import spaces_of
from forebay.cache.datasets import Attached
from forebay.cache.lookup import Lookup
from forebay.cache.manifests.compare import compare
from forebay.cache.reclaim import Reclaimer
from forebay.cache.status import FileStatus, SyncReport, status_of
from forebay.cache.sync import Sync
from forebay.errors import NotFound
from forebay.meta import Entries, Entry

if TYPE_CHECKING:
    from forebay.store import BlockStore


class Tree:
    """Directories of attached datasets, for one process. Threads: any."""

    def __init__(self, store: BlockStore, entries: Entries, lookup: Lookup, reclaimer: Reclaimer) -> None:
        """Use these, all of one process."""
        self._store: Final = store
        self._entries: Final = entries.strict()
        self._lookup: Final = lookup
        self._reclaimer: Final = reclaimer
        self._sync: Final = Sync(entries, lookup)

    def status(self, attached: Attached, path: str) -> FileStatus:
        """Describe an object or a directory, the dataset itself for "". Raises: as UnderStorage.stat."""
        if not path:
            return FileStatus(attached.label, 0, 0, "", is_dir=True)
        return status_of(attached.label, self._lookup.stat(attached, path))

    def names(self, attached: Attached, path: str) -> list[str]:
        """Return the names in a directory, in order. Raises: as ``statuses``."""
        try:
            return self._lookup.names(attached, path)
        except NotFound:
            self._raise_if_object(attached, path)
            raise

    def statuses(self, attached: Attached, path: str) -> list[FileStatus]:
        """Describe what lies in a directory, in the order of names.

        Raises: NotADirectoryError; as UnderStorage.list.
        """
        try:
            children = self._lookup.children(attached, path)
        except NotFound:
            self._raise_if_object(attached, path)
            raise
        return [status_of(attached.label, entry) for entry in children]

    def scan(self, attached: Attached, path: str, after: str = "") -> Iterator[FileStatus]:
        """Describe one by one what lies in a directory behind a name, in the order of the names' bytes.

        Raises: as ``statuses``; OSError (EIO: what was known was damaged), both while it is iterated.
        """
        try:
            found = self._lookup.scan(attached, path, after)
        except NotFound:
            self._raise_if_object(attached, path)
            raise
        for entry in found:
            yield status_of(attached.label, entry)

    def walk(self, attached: Attached, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield directory, names of directories in it and of objects, and go on into those that are left.

        Raises: as ``statuses``.
        """
        name = attached.label
        waiting = [path]
        while waiting:
            directory = waiting.pop()
            below: list[str] = []
            objects: list[str] = []
            for status in self.statuses(attached, directory):
                (below if status.is_dir else objects).append(status.name)
            yield (f"{name}/{directory}" if directory else name), below, objects
            waiting += [f"{directory}/{each}" if directory else each for each in reversed(below)]

    def sync(self, attached: Attached, path: str) -> SyncReport:
        """Ask for everything below the path now; for a manifest, tell how the source differs from it.

        Raises: as ``Sync.run``.
        """
        if attached.manifest is not None:
            return compare(attached, attached.manifest, path)
        return self._sync.run(attached, path)

    def known_objects(self, attached: Attached, path: str) -> Iterator[Entry]:
        """Yield all objects at and below a path that are shown and known, fresh or not; asks nobody."""
        if attached.manifest is not None:
            for page in attached.manifest.pages(path):
                yield from page
            return
        dataset_id = attached.record.id
        entry = self._entries.get(dataset_id, path) if path else None
        if entry is not None:
            yield entry
        for directory in list(self._entries.known_directories(dataset_id, path)):
            for child in self._entries.children(dataset_id, directory):
                if not child.is_dir:
                    yield child

    def free(self, attached: Attached, path: str, *, data: bool, metadata: bool) -> None:
        """Drop cached bytes, and entries, of all that is known at or below the path.

        Of a version of a dataset only bytes, those that it lists. Raises: StoreBusy, OSError (EBUSY):
        somebody is writing there; PermissionError; as ``Entries.strict``. Part of it is dropped then.
        """
        dataset_id = attached.record.id
        if data and attached.manifest is not None and (path or attached.is_version):
            for page in attached.manifest.pages(path):
                self._free(dataset_id, page, data=True, metadata=False)
        if attached.is_version:
            return
        if not path:
            if data:
                for space in spaces_of(dataset_id):
                    self._store.free_dataset(space)
            if metadata:
                self._entries.drop_dataset(dataset_id)
            return
        # The object first: a directory of the same name goes with all that is in it.
        entry = self._entries.get(dataset_id, path)
        if entry is not None:
            self._free(dataset_id, [entry], data=data, metadata=metadata)
        for directory in list(self._entries.known_directories(dataset_id, path)):
            children = self._entries.children(dataset_id, directory)
            self._free(dataset_id, children, data=data, metadata=metadata)
            if metadata:
                self._entries.forget_listing(dataset_id, directory)
        if metadata:
            self._entries.drop(dataset_id, [path])
            # Notes of what is absent do not say below which directory.
            self._entries.forget_absent(dataset_id)
            # What is forgotten is missing there, and whoever lists it is to ask anew.
            self._entries.forget_listing(dataset_id, path.rpartition("/")[0])

    def _free(self, dataset_id: int, found: Sequence[Entry], *, data: bool, metadata: bool) -> None:
        if data:
            self._reclaimer.drop(dataset_id, [entry for entry in found if not entry.is_dir])
        if metadata:
            # Forgotten is not gone: the blocks are good as soon as the version is known again.
            self._entries.drop(dataset_id, [entry.path for entry in found])

    def _raise_if_object(self, attached: Attached, path: str) -> None:
        if path and not self._lookup.stat(attached, path).is_dir:
            name = f"{attached.label}/{path}"
            raise NotADirectoryError(errno.ENOTDIR, "is an object, not a directory", name) from None
