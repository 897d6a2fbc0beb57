"""Building a manifest: a file that is written once, in batches, and then never changed.

The file has its name from the beginning, with a number that no other has; what makes a manifest of it is the
catalog's row, which comes last. Whoever builds holds the file locked, so that others can tell what is under
way from what a killed process left.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import lmdb

from forebay.durable import sync_folder
from forebay.meta._rows import count_objects, unpack_entries
from forebay.meta.held import HeldLock
from forebay.meta.ledger import begin_at
from forebay.meta.manifest_record import first_inode_of
from forebay.meta.read import Read
from forebay.meta.rows import ENTRIES, Entry, end_of
from forebay.meta.write import Write

FILE_SUFFIX: Final = ".lmdb"
_ORDER_SUFFIX: Final = ".order"

_FILE_MODE: Final = 0o600
_SHARED_FILE_MODE: Final = 0o660
_FOLDER_MODE: Final = 0o700
_SHARED_FOLDER_MODE: Final = 0o2770
_BATCH: Final = 10_000
_MAP_BYTES: Final = 256 << 30
# A directory has no time of its own.
_DIRECTORY_NS: Final = 0
_DIRECTORIES_KEPT: Final = 65_536
# LMDB tells of a short write, which is all that a full disk does, as of an input/output error.
_FULL_BYTES: Final = 64 << 10


class ManifestSize(NamedTuple):
    """How many objects a manifest lists, and their bytes."""

    objects: int
    bytes: int


class _NoChanges:
    """The change counters of what nobody looks up anything in before it is complete."""

    def settle(self, transaction: Any, dataset_id: int) -> None:
        """Mend nothing."""

    def announce(self, transaction: Any, dataset_id: int) -> None:
        """Tell nobody."""


class _Directories:
    """The directories that objects lie in, each told of as it is first seen, or again after a long time."""

    def __init__(self) -> None:
        self._known: Final[set[str]] = set()

    def new_in(self, page: Iterable[Entry]) -> list[Entry]:
        """Return an entry for each directory in these objects' paths that has not been told of."""
        if len(self._known) > _DIRECTORIES_KEPT:
            self._known.clear()
        new: list[Entry] = []
        for entry in page:
            directory = entry.path.rpartition("/")[0]
            while directory and directory not in self._known:
                self._known.add(directory)
                new.append(Entry(directory, 0, 0, "", True, _DIRECTORY_NS))
                directory = directory.rpartition("/")[0]
        return new


class ManifestBuilder:
    """One manifest on its way. For one thread at a time; a context manager that removes it unless it is kept.

    Whatever cannot be written raises OSError, which names the file.
    """

    def __init__(self, path: Path, dataset_id: int, number: int, shared_group: int | None = None) -> None:
        """Begin a file that is not there yet; the folder above that of the file is there."""
        self._path: Final = path
        self._dataset_id: Final = dataset_id
        self._shared_group: Final = shared_group
        self._first_inode: Final = first_inode_of(number)
        self._batch: list[Entry] = []
        self._directories: Final = _Directories()
        self._ordered_count: int | None = None
        self._is_kept = False
        self._lock: Final = HeldLock(_new_file(path, shared_group))
        self._env: Any = None
        try:
            with self._telling():
                self._env = _open(path)
                with self._env.begin(write=True) as transaction:
                    begin_at(transaction, self._first_inode)
        except BaseException:
            self.close()
            raise

    @property
    def is_ordered(self) -> bool:
        """Whether an order was laid down."""
        return self._ordered_count is not None

    def add(self, entries: Iterable[Entry]) -> None:
        """List objects; of a path that comes more than once the latest counts, by checked_ns."""
        self._batch += entries
        while len(self._batch) >= _BATCH:
            batch, self._batch = self._batch[:_BATCH], self._batch[_BATCH:]
            self._write(batch)

    def add_order(self, paths: Iterable[str], *, as_read: bool = False) -> None:
        """Lay down the order of access: all that is listed by now, each object once.

        as_read: what is not listed, and what comes again, is left out of it. Raises: ValueError (otherwise,
        a path that is not listed, or comes twice).
        """
        self._flush()
        with self._telling(), self._env.begin() as transaction:
            self._ordered_count = self._write_order(Read(transaction), paths, as_read=as_read)

    def size(self) -> ManifestSize:
        """Read back all that is listed by now and return how much it is."""
        self._flush()
        with self._telling(), self._env.begin() as transaction:
            return self._size(transaction)

    def first_lost(self, first_ns: int, count: int) -> int | None:
        """Return the least of the times from first_ns on that no object has; None if all of count are there.

        Of two entries of one path the later one stays, so this tells which one was lost by it.
        """
        self._flush()
        found = bytearray(count)
        with self._telling(), self._env.begin() as transaction:
            cursor = transaction.cursor()
            rows = iter(cursor) if cursor.set_range(ENTRIES) else iter(())
            while entries := unpack_entries("", islice(rows, _BATCH), end_of(ENTRIES))[0]:
                for entry in entries:
                    if not entry.is_dir:
                        found[entry.checked_ns - first_ns] = 1
        lost = found.find(0)
        return None if lost < 0 else first_ns + lost

    def finish(self) -> ManifestSize:
        """Put all of it on disk, read it back, and return how much it lists.

        Raises: ValueError (the order leaves objects out).
        """
        size = self.size()
        with self._telling():
            self._env.sync(True)
            env, self._env = self._env, None
            env.close()
            sync_folder(self._path.parent)
        if self._ordered_count not in (None, size.objects):
            raise ValueError(f"the order names {self._ordered_count} of the {size.objects} objects")
        return size

    def keep(self) -> None:
        """Let the file stay: it is a manifest's from now on."""
        self._is_kept = True

    def close(self) -> None:
        """Give up the lock, and remove what is not to be kept; may be called twice."""
        env, self._env = self._env, None
        if env is not None:
            env.close()
        if not self._is_kept:
            self._is_kept = True
            remove_files(self._path)
        self._lock.release()

    def __enter__(self) -> Self:
        """Return this builder."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            self._write(batch)

    def _write(self, batch: Sequence[Entry]) -> None:
        with self._telling(), self._env.begin(write=True) as transaction:
            write = Write(transaction, self._dataset_id, _NoChanges())
            write.put([*batch, *self._directories.new_in(batch)])
            write.finish()
            if write.has_skipped:
                raise self._unlistable(Read(transaction), batch)

    def _unlistable(self, read: Read, batch: Sequence[Entry]) -> ValueError:
        missing = (each for each in batch if not self._is_listed(read, each))
        found = next(missing, batch[0])
        return ValueError(f"{found.path!r} (version {found.version!r}) cannot be listed in a manifest")

    def _is_listed(self, read: Read, entry: Entry) -> bool:
        try:
            return read.find(self._dataset_id, entry.path) is not None
        except UnicodeEncodeError:
            return False

    def _write_order(self, read: Read, paths: Iterable[str], *, as_read: bool) -> int:
        """Write the paths and return how many they are; a bit for each inode tells which have come."""
        seen = bytearray()
        count = 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(order_path_of(self._path), flags, _FILE_MODE)
        with open(descriptor, "w", encoding="ascii") as output:
            _share(descriptor, self._shared_group)
            for path in paths:
                entry = read.find(self._dataset_id, path)
                if entry is None:
                    if as_read:
                        continue
                    raise ValueError(f"the order names {path!r}, which is not listed")
                place, bit = divmod(entry.inode - self._first_inode, 8)
                seen.extend(bytes(max(place + 1 - len(seen), 0)))
                if seen[place] >> bit & 1:
                    if as_read:
                        continue
                    raise ValueError(f"the order names {path!r} twice")
                seen[place] |= 1 << bit
                output.write(json.dumps(path) + "\n")
                count += 1
            output.flush()
            os.fsync(descriptor)
        return count

    def _size(self, transaction: Any) -> ManifestSize:
        cursor = transaction.cursor()
        rows = cursor if cursor.set_range(ENTRIES) else ()
        objects, size_bytes, damaged = count_objects(rows, end_of(ENTRIES))
        if damaged:
            raise OSError(errno.EIO, f"{damaged} rows are not as they were written", str(self._path))
        return ManifestSize(objects, size_bytes)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell of LMDB's errors as of a file's."""
        try:
            yield
        except lmdb.Error as error:
            space = os.statvfs(self._path.parent)
            if space.f_bavail * space.f_frsize < _FULL_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path)) from error
            raise OSError(errno.EIO, f"cannot be written: {error}", str(self._path)) from error


def order_path_of(path: Path) -> Path:
    """Return where the order of a manifest's file lies."""
    return path.with_suffix(_ORDER_SUFFIX)


def remove_files(path: Path) -> None:
    """Remove a manifest's file, and the order beside it first; what is gone already is no error."""
    order_path_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def try_lock(path: Path) -> HeldLock | None:
    """Take the lock of a file that nobody builds any more; None: somebody does, or it is none of ours."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return HeldLock(descriptor)


def _new_file(path: Path, shared_group: int | None) -> int:
    """Make the file and return a descriptor of it that holds its lock."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        make_folder(path.parent, shared_group)
        # A catalog that was restored from its backup gives a number again, whose file nothing names.
        remove_files(path)
        try:
            descriptor = os.open(path, flags, _FILE_MODE)
        except FileNotFoundError:
            # Whoever swept the folder has removed it, empty as it was.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _share(descriptor, shared_group)
            # It may have been swept before it was locked.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def make_folder(folder: Path, shared_group: int | None) -> None:
    """Make a folder, whose parent is there, unless it is there."""
    try:
        folder.mkdir(mode=_FOLDER_MODE)
    except FileExistsError:
        return
    if shared_group is not None:
        os.chown(folder, -1, shared_group)
        folder.chmod(_SHARED_FOLDER_MODE)


def _share(descriptor: int, group: int | None) -> None:
    """Give a group, if there is one, a file that was just made."""
    if group is not None:
        os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, _SHARED_FILE_MODE)


def _open(path: Path) -> Any:
    """Open the empty file; nobody else does while it is locked, so LMDB needs no locks."""
    return lmdb.open(str(path), subdir=False, lock=False, map_size=_MAP_BYTES, sync=False, metasync=False)
