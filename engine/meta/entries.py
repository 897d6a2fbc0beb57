"""Entries: what is known of the objects in the attached datasets.

A cache itself: dropped at boot, and never a loss. What cannot be written (a full disk, a full map, a
stopped writer) or cannot be read (damage) is counted, told of once and otherwise ignored: what is not known
is asked again.

One row for each object or directory, under its dataset, its parent and its name (rows.py), so that a stat
is one look-up and a directory's content one range of keys. Every row carries the boot time at which the
under storage said so, and newer knowledge gives way to no older one, in whatever order they come.
"""

from __future__ import annotations

import copy
import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

import lmdb

from forebay.errors import StoreBusy
from forebay.meta import stale
from forebay.meta.directories import directories_above, find_directories
from forebay.meta.drop import Drop
from forebay.meta.environment import Environment
from forebay.meta.group_commit import GroupCommit
from forebay.meta.read import Listing, Names, Read
from forebay.meta.rows import CHANGES_UNKNOWN, Entry
from forebay.meta.stale import StaleObject
from forebay.meta.sweep import Sweep
from forebay.meta.trouble import Trouble, as_os_error
from forebay.meta.write import Write

if TYPE_CHECKING:
    from forebay.meta._recent import ChangeCounter
    from forebay.meta.changes import Changes

_T = TypeVar("_T")

_BATCH: Final = 1_000

# Reads go on without what is not written, so they wait little for it.
_PATIENCE_S: Final = 1.0


class Written(NamedTuple):
    """What came of a ``put``: whether all of it is remembered, and which versions it showed to be stale.

    True if all of it is remembered.
    """

    complete: bool
    replaced: list[StaleObject]

    def __bool__(self) -> bool:
        """Whether all of it is remembered."""
        return self.complete


class Seen(NamedTuple):
    """What a look-up saw, and the number of changes that it belongs to, for ``Recent.put``."""

    entry: Entry | None
    changes: int


class Entries:
    """The entries of all datasets of one cache directory.

    Threads: any; other processes may write as well.
    """

    def __init__(
        self,
        environment: Environment,
        changes: Changes,
        *,
        read_only: bool = False,
        on_damage: Callable[[], None] = lambda: None,
    ) -> None:
        """Use an environment that the caller keeps open, and closes; read_only makes writing a no-op.

        on_damage is called once if LMDB cannot read its file, to have it out of the way of the next opener.
        """
        self._environment: Final = environment
        self._changes: Final = changes
        self._read_only: Final = read_only
        self._trouble: Final = Trouble(None if read_only else on_damage)
        self._is_strict = False
        self._group: Final = GroupCommit(environment, changes, _PATIENCE_S)

    def strict(self) -> Self:
        """Return the same entries for who is to be told of what cannot be read or written.

        Their methods raise, besides what they say: StoreBusy (another process writes, or is stopped while
        it reads); PermissionError (read only); OSError (all else that LMDB says).
        """
        other = copy.copy(self)
        other._is_strict = True
        return other

    @property
    def damaged_rows(self) -> int:
        """How many damaged rows this process has come upon; each was a miss."""
        return self._trouble.damaged_rows

    def get(self, dataset_id: int, path: str, *, directories: bool = False) -> Entry | None:
        """Return what is known of the object, or else, if asked for, of the directory of that name."""
        return self._read(lambda read: read.find(dataset_id, path, directories=directories), None)

    def seen(self, dataset_id: int, path: str, *, directories: bool = False) -> Seen:
        """Return as ``get`` what is known, with the number of changes that goes with it into ``Recent``."""

        def look(read: Read) -> Seen:
            number = self._changes.committed(read.transaction, dataset_id)
            return Seen(read.find(dataset_id, path, directories=directories), number)

        return self._read(look, Seen(None, CHANGES_UNKNOWN))

    def shown(self, dataset_id: int, path: str) -> Seen:
        """Return as ``seen`` what a file system shows of a name: the directory, where there are both."""

        def look(read: Read) -> Seen:
            number = self._changes.committed(read.transaction, dataset_id)
            return Seen(read.shown(dataset_id, path), number)

        return self._read(look, Seen(None, CHANGES_UNKNOWN))

    def page(
        self, dataset_id: int, directory: str, kind: bytes, position: bytes | str
    ) -> tuple[list[Entry], bytes | None] | None:
        """Return as ``Read.page`` some of what is known in a directory; None if it cannot all be read."""

        def look(read: Read) -> tuple[list[Entry], bytes | None] | None:
            found = read.page(dataset_id, directory, kind, position)
            return None if read.damaged_rows else found

        return self._read(look, None)

    def by_inode(self, inode: int) -> tuple[int, Entry] | None:
        """Return the dataset's id and the entry that has this inode."""
        return self._read(lambda read: read.find_inode(inode), None)

    def changes(self, dataset_id: int) -> int:
        """Return how often something known of the dataset has become different or was forgotten.

        Asked before a look-up, it is a number for ``Recent.put`` as well; ``seen`` is cheaper.
        """
        return self._read(lambda read: self._changes.committed(read.transaction, dataset_id), CHANGES_UNKNOWN)

    def counter(self, dataset_id: int) -> ChangeCounter:
        """Return the shared word that follows ``changes``, for ``Recent``."""
        return self._changes.counter(dataset_id)

    def put(self, dataset_id: int, entries: Iterable[Entry]) -> Written:
        """Remember entries; what was known of the same objects gives way unless it is newer."""
        wanted = list(entries)
        if not wanted:
            return Written(True, [])
        write = self._write_together(dataset_id, lambda write: write.put(wanted))
        if write is None:
            return Written(False, [])
        return Written(not write.has_skipped, write.replaced)

    def put_with_above(self, dataset_id: int, entry: Entry) -> Written:
        """Remember an entry, and as of its time the directories above that are not known to be there."""

        def put(write: Write) -> None:
            write.put([entry, *directories_above(Read(write.transaction), dataset_id, entry)])

        write = self._write_together(dataset_id, put)
        if write is None:
            return Written(False, [])
        return Written(not write.has_skipped, write.replaced)

    def forget(self, dataset_id: int, path: str) -> list[StaleObject]:
        """Remove what is known of the object or directory; return the version that became stale, if any."""

        def remove(write: Write) -> None:
            write.remove(path)
            write.forget_absent(path)

        write = self._write_together(dataset_id, remove)
        return [] if write is None else write.replaced

    def drop(self, dataset_id: int, paths: Iterable[str]) -> None:
        """Remove what is known of objects and directories, whose versions do not become stale by that."""

        def remove(write: Write, batch: Iterable[str]) -> None:
            for path in batch:
                write.remove(path)
                write.forget_absent(path)
            write.reclaimed(write.replaced)

        for batch in _batches(paths):
            self._write(dataset_id, partial(remove, batch=batch))

    def forget_listing(self, dataset_id: int, directory: str) -> None:
        """Forget that the directory was listed as a whole; what is known in it stays known."""

        def unlist(write: Write) -> None:
            row = write.directory(directory)
            if row is not None and row.listed_ns:
                write.set_directory(row._replace(listed_ns=0))

        self._write(dataset_id, unlist)

    def note_absent(self, dataset_id: int, path: str, asked_ns: int) -> list[StaleObject]:
        """Remember that the under storage, asked at asked_ns, had nothing of that name; return as forget."""
        write = self._write_together(dataset_id, lambda write: write.note_absent(path, asked_ns))
        return [] if write is None else write.replaced

    def void(self, dataset_id: int, directory: str, asked_ns: int) -> None:
        """Let nothing that was checked before asked_ns be known below the directory, at any depth."""
        self._sweep(dataset_id, self.known_directories(dataset_id, directory), asked_ns, is_listed=False)

    def absent_ns(self, dataset_id: int, path: str) -> int | None:
        """Return when the under storage last said that there is nothing of that name; None if it did not."""
        return self._read(lambda read: read.absent_ns(dataset_id, path), None)

    def forget_absent(self, dataset_id: int) -> None:
        """Forget of all of a dataset's paths that there is nothing of that name."""
        self._write(dataset_id, Write.forget_all_absent)

    def listed_ns(self, dataset_id: int, directory: str) -> int | None:
        """Return when the last complete listing of the directory began, None if there was none."""

        def look(read: Read) -> int | None:
            row = read.directory(dataset_id, directory)
            return None if row is None else row.listed_ns or None

        return self._read(look, None)

    def listing(self, dataset_id: int, directory: str) -> Listing:
        """Return the directory's content and when it was listed, both of one moment."""
        return self._read(lambda read: read.listing(dataset_id, directory), Listing(None, []))

    def children(self, dataset_id: int, directory: str) -> list[Entry]:
        """Return what is known in the directory, complete only if a listing was completed."""
        return self.listing(dataset_id, directory).entries

    def known_directories(self, dataset_id: int, root: str) -> Iterator[str]:
        """Yield the directories at and below root in which something is known, in no promised order."""
        position: bytes | None = None
        while True:
            look = partial(find_directories, dataset_id=dataset_id, root=root, position=position)
            found = self._read(look, None)
            if found is None:
                return
            yield from found.paths
            position = found.position
            if position is None:
                return

    def names(self, dataset_id: int, directory: str) -> Names:
        """Return as ``listing``, but the names alone, each once and in order; several times as fast."""
        return self._read(lambda read: read.names(dataset_id, directory), Names(None, []))

    def finish_listing(self, dataset_id: int, directory: str, started_ns: int) -> None:
        """Note that the directory was listed as a whole: what the listing did not show is gone.

        The caller has put everything that was listed, and all was written, with started_ns or later as its
        time.
        """
        self.finish_listings(dataset_id, [directory], started_ns)

    def finish_listings(self, dataset_id: int, directories: Iterable[str], started_ns: int) -> None:
        """Note as ``finish_listing`` directories that were listed together, as a walk lists them."""
        self._sweep(dataset_id, directories, started_ns, is_listed=True)

    def stale(self, limit: int) -> list[StaleObject]:
        """Return up to limit versions, of any dataset, whose blocks are to be reclaimed."""
        found = self._read(lambda read: stale.read(read.transaction, limit), None)
        if found is None:
            return []
        objects, damaged = found
        if damaged:
            self._trouble.note_damaged_rows(len(damaged))
            self._write(0, lambda write: write.discard(damaged))
        return objects

    def reclaimed(self, objects: Iterable[StaleObject]) -> None:
        """Take versions off the list of stale ones, for their blocks are gone."""
        done = list(objects)
        if done:
            self._write(0, lambda write: write.reclaimed(done))

    def announce(self, dataset_id: int) -> None:
        """Have every process look up anew what it remembers: the dataset's settings have changed."""

        def tell(write: Write) -> None:
            write.has_changed = True

        self._write(dataset_id, tell)

    @contextmanager
    def announcing(self, dataset_id: int) -> Iterator[None]:
        """Announce a change that the body makes elsewhere, such as which manifest the dataset shows.

        Unlike ``announce`` it holds wherever the process dies: the counter's word is raised before the body,
        its row after it. So what was looked up before the change is not found again after it, if whoever
        remembers it has seen the old state still be there after he read the row. Raises: StoreBusy, OSError
        (the body was not run); PermissionError (opened to be read only).
        """
        if self._read_only:
            raise PermissionError("the cache is open to be read only; nothing can be changed in it")
        is_done = False
        try:
            with self._environment.writing() as transaction:
                write = Write(transaction, dataset_id, self._changes)
                write.has_changed = True
                write.finish()
                yield
                is_done = True
        except lmdb.Error as error:
            # After the body the word alone stands for the change: nothing is remembered until the next one.
            self._trouble.note_failure(error)
            if not is_done:
                raise OSError(errno.EIO, f"the metadata could not be written: {error}") from error
        finally:
            if not is_done:
                self.settle(dataset_id)

    def settle(self, dataset_id: int) -> None:
        """Mend the counter of a dataset if a process died while it announced a change."""
        number = self.changes(dataset_id)
        if number not in (self.counter(dataset_id).load(), CHANGES_UNKNOWN):
            self.announce(dataset_id)

    def drop_dataset(self, dataset_id: int) -> None:
        """Remove everything of a dataset, in batches, so that other writers are not kept waiting."""
        self.forget_absent(dataset_id)
        drop = Drop(dataset_id)
        while not drop.is_done and self._write(dataset_id, drop.step) is not None:
            pass

    def _sweep(self, dataset_id: int, directories: Iterable[str], before_ns: int, *, is_listed: bool) -> None:
        """Let nothing that was checked before that time be known in the directories."""
        for batch in _batches(directories):
            sweep = Sweep(batch, before_ns, is_listed=is_listed)
            while not sweep.is_done and self._write(dataset_id, sweep.step) is not None:
                pass

    def _read(self, look: Callable[[Read], _T], default: _T) -> _T:
        """Run one reading transaction; what LMDB cannot read is not known."""
        try:
            with self._environment.reading() as transaction:
                read = Read(transaction)
                found = look(read)
        except lmdb.Error as error:
            self._fail(error)
            return default
        if read.damaged_rows:
            self._trouble.note_damaged_rows(read.damaged_rows)
        return found

    def _write(self, dataset_id: int, action: Callable[[Write], object]) -> Write | None:
        """Run one writing transaction and return what it did; None if it could not be written."""
        if not self._may_write():
            return None
        try:
            with self._environment.writing(_PATIENCE_S, is_hasty=not self._is_strict) as transaction:
                write = Write(transaction, dataset_id, self._changes)
                action(write)
                write.finish()
        except (lmdb.Error, StoreBusy) as error:
            self._fail(error)
            return None
        self._trouble.has_failed = False
        return write

    def _write_together(self, dataset_id: int, action: Callable[[Write], object]) -> Write | None:
        """Write as ``_write``, but together with other threads; the action may be run more than once."""
        if self._is_strict:
            return self._write(dataset_id, action)
        if not self._may_write():
            return None
        try:
            write = self._group.write(dataset_id, action)
        except (lmdb.Error, StoreBusy) as error:
            self._fail(error)
            return None
        self._trouble.has_failed = False
        return write

    def _may_write(self) -> bool:
        if self._read_only and self._is_strict:
            raise PermissionError(errno.EROFS, "the cache is open read-only here", self._environment.path)
        return not self._read_only

    def _fail(self, error: lmdb.Error | StoreBusy) -> None:
        """Note that a transaction came to nothing. Raises: as ``strict`` says, if this is it."""
        if self._is_strict:
            self._trouble.note_error(error)
            raise as_os_error(error, self._environment.path) from error
        self._trouble.note_failure(error)


def _batches(paths: Iterable[str]) -> Iterator[list[str]]:
    """Yield as many paths at a time as are one transaction's."""
    rest = iter(paths)
    while batch := list(islice(rest, _BATCH)):
        yield batch
