"""Manifests as they are read: immutable versions of a dataset, each the only truth about what it lists.

A manifest is a file of its own in the layout of the entries (rows.py), written once and never changed, so
that a look-up in it is the same look-up, asks nobody and is never too old. Unlike the entries it is no cache:
what is damaged in it is an error, not something unknown.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import lmdb

from forebay.meta.environment import Environment
from forebay.meta.manifest_record import ManifestRecord
from forebay.meta.read import Read
from forebay.meta.rows import DIRECTORY, OBJECT, Entry

_T = TypeVar("_T")


class Manifest(ABC):
    """What a dataset shows if it shows no more than a list. Threads: any.

    Everything raises OSError (EIO) where the list is damaged.
    """

    # The one that the inodes of its entries say.
    number: int

    @abstractmethod
    def find(self, path: str) -> Entry | None:
        """Return the object, or else the directory, of that name."""

    @abstractmethod
    def shown(self, path: str) -> Entry | None:
        """Return the directory, or else the object, of that name."""

    @abstractmethod
    def by_inode(self, inode: int) -> Entry | None:
        """Return the object or directory that has this inode."""

    @abstractmethod
    def page(self, directory: str, kind: bytes, position: bytes | str) -> tuple[list[Entry], bytes | None]:
        """Return some of what is of one kind in a directory: as ``Read.page``."""

    @abstractmethod
    def children(self, directory: str) -> list[Entry] | None:
        """Return what lies in a directory, in the order of names; None if there is no such directory."""

    @abstractmethod
    def names(self, directory: str) -> list[str] | None:
        """Return the names in a directory, each once and in order; None if there is no such directory."""

    @abstractmethod
    def pages(self, path: str) -> Iterator[list[Entry]]:
        """Yield the object of that name and all objects below the directory of that name, page by page.

        Directory by directory, in the order of names, and so in bounded memory.
        """


class EmptyManifest(Manifest):
    """The list of a dataset that is to show no more than a list, and has none."""

    # No entry's.
    number = -1

    def find(self, path: str) -> Entry | None:
        """Return nothing."""
        return None

    def shown(self, path: str) -> Entry | None:
        """Return nothing."""
        return None

    def by_inode(self, inode: int) -> Entry | None:
        """Return nothing."""
        return None

    def page(self, directory: str, kind: bytes, position: bytes | str) -> tuple[list[Entry], bytes | None]:
        """Return that there is nothing."""
        return [], None

    def children(self, directory: str) -> list[Entry] | None:
        """Return that the dataset is empty."""
        return None if directory else []

    def names(self, directory: str) -> list[str] | None:
        """Return that the dataset is empty."""
        return None if directory else []

    def pages(self, path: str) -> Iterator[list[Entry]]:
        """Yield nothing."""
        return iter(())


class StoredManifest(Manifest):
    """A manifest in its file."""

    def __init__(self, environment: Environment, record: ManifestRecord, path: str) -> None:
        """Read the environment of that file, which the caller keeps open, and closes."""
        self.record: Final = record
        self.number = record.number
        self._environment: Final = environment
        self._path: Final = path
        self._dataset_id: Final = record.dataset_id

    def find(self, path: str) -> Entry | None:
        """Return the object, or else the directory, of that name."""
        return self._read(lambda read: read.find(self._dataset_id, path, directories=True))

    def shown(self, path: str) -> Entry | None:
        """Return the directory, or else the object, of that name."""
        return self._read(lambda read: read.shown(self._dataset_id, path))

    def by_inode(self, inode: int) -> Entry | None:
        """Return the object or directory that has this inode."""
        found = self._read(lambda read: read.find_inode(inode))
        return None if found is None else found[1]

    def page(self, directory: str, kind: bytes, position: bytes | str) -> tuple[list[Entry], bytes | None]:
        """Return some of what is of one kind in a directory: as ``Read.page``."""
        return self._read(lambda read: read.page(self._dataset_id, directory, kind, position))

    def children(self, directory: str) -> list[Entry] | None:
        """Return what lies in a directory, in the order of names."""

        def look(read: Read) -> list[Entry] | None:
            if directory and read.directory(self._dataset_id, directory) is None:
                return None
            return read.listing(self._dataset_id, directory).entries

        found = self._read(look)
        return found if found is None else sorted(found, key=lambda entry: (entry.path, entry.is_dir))

    def names(self, directory: str) -> list[str] | None:
        """Return the names in a directory, each once and in order."""

        def look(read: Read) -> list[str] | None:
            if directory and read.directory(self._dataset_id, directory) is None:
                return None
            return read.names(self._dataset_id, directory).names

        return self._read(look)

    def pages(self, path: str) -> Iterator[list[Entry]]:
        """Yield the object of that name and all objects below the directory of that name, page by page."""
        found = self.find(path) if path else None
        if found is not None and not found.is_dir:
            yield [found]
        waiting = [iter((path,))]
        while waiting:
            directory = next(waiting[-1], None)
            if directory is None:
                waiting.pop()
                continue
            yield from self._pages_in(directory, OBJECT)
            waiting.append(self._directories_in(directory))

    def _directories_in(self, directory: str) -> Iterator[str]:
        for page in self._pages_in(directory, DIRECTORY):
            yield from (entry.path for entry in page)

    def _pages_in(self, directory: str, kind: bytes) -> Iterator[list[Entry]]:
        """Yield what is of one kind in a directory, each page in a transaction of its own."""
        position: bytes | None = b""
        while position is not None:
            page, position = self.page(directory, kind, position)
            if page:
                yield page

    def _read(self, look: Callable[[Read], _T]) -> _T:
        try:
            with self._environment.reading() as transaction:
                read = Read(transaction)
                found = look(read)
        except lmdb.Error as error:
            raise self._damaged(str(error)) from error
        if read.damaged_rows:
            raise self._damaged(f"{read.damaged_rows} rows do not pass their checksums")
        return found

    def _damaged(self, cause: str) -> OSError:
        words = f"manifest {self.record.version!r} is damaged ({cause}); use another version, or make it anew"
        return OSError(errno.EIO, words, self._path)
