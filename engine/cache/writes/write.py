"""Writes, mode by mode: what is acknowledged is at the under storage, and what the cache knows follows.

The life of a write:

1. The dataset and its storage allow it, or it is refused before anything is staged or sent.
2. The path is held against other writers of the host, and a ticket says that it is being written.
3. The storage shows the object, as a whole, and says its version.
4. For ``cache_through`` its blocks go into the store under that version's keys, if it is proven that the
   version is that of these bytes.
5. The entries are told. From here on every process reads what was written.
6. The ticket goes. Who is killed before that leaves it, and whoever opens the cache next removes what is left
   at the storage and has the path looked up anew.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from forebay.cache.admission import Admission
from forebay.cache.blocks import blocks_of
from forebay.cache.datasets import Attached, Datasets
from forebay.cache.lookup import Lookup, as_entry, refuse_directory
from forebay.cache.pool import FetchPool, Kind
from forebay.cache.writes.file import WritableFile
from forebay.cache.writes.knowledge import Knowledge
from forebay.cache.writes.staging import Staged, Staging
from forebay.cache.writes.tickets import Ticket, Tickets
from forebay.cache.writes.turns import Turns
from forebay.errors import (
    Closed,
    NotAttached,
    NotFound,
    Stale,
    UnderStorageError,
    already_there,
    stale,
    under_storage_error,
)
from forebay.meta import Entry
from forebay.ufs.payload import Payload
from forebay.ufs.writer import StorageWriter, WriteJob

if TYPE_CHECKING:
    from forebay.store import BlockStore, View

_T = TypeVar("_T")

# With these a storage says that it has not even tried.
_REFUSALS: Final = frozenset(
    {errno.EROFS, errno.EOPNOTSUPP, errno.EFBIG, errno.EILSEQ, errno.EINVAL, errno.ENOTEMPTY}
)


@dataclass(frozen=True)
class WriteParts:
    """What writes are made with, all of one process."""

    store: BlockStore
    admission: Admission
    datasets: Datasets
    lookup: Lookup
    pool: FetchPool
    knowledge: Knowledge
    turns: Turns
    tickets: Tickets
    staging: Staging
    views: Callable[[Attached, Entry], Iterator[View]]


class _Job(WriteJob):
    """A ticket for the notes, and the pool for the requests."""

    def __init__(self, ticket: Ticket, pool: FetchPool) -> None:
        self._ticket: Final = ticket
        self._pool: Final = pool

    def note(self, **facts: Any) -> None:
        self._ticket.note(**facts)

    def leave(self) -> None:
        self._ticket.leave()

    def run_all(self, tasks: Sequence[tuple[int, Callable[[], _T]]]) -> list[_T]:
        # After readers, who wait as well, and before loads.
        return self._pool.run_all(Kind.READAHEAD, list(tasks))


class Writes:
    """Changes attached datasets, for one process. Threads: any."""

    def __init__(self, parts: WriteParts) -> None:
        """Use these."""
        self._parts: Final = parts
        self._closed = False

    def writer(self, attached: Attached, path: str) -> StorageWriter:
        """Return what changes the dataset.

        Raises: PermissionError (EROFS: the dataset or the cache is not to be written, or shows a manifest);
        UnderStorageError (the storage can only be read, EROFS); Closed.
        """
        if self._closed:
            raise Closed("the cache is closed")
        record = attached.record
        name = f"{record.name}/{path}"
        if self._parts.store.read_only:
            raise PermissionError(errno.EROFS, "the cache was opened to be read only", name)
        if not record.writable:
            words = f"the dataset {record.name!r} is attached to be read only; attach it with writable=True"
            raise PermissionError(errno.EROFS, words, name)
        if attached.manifest is not None:
            raise PermissionError(errno.EROFS, _words_of_manifest(attached), name)
        writer = attached.storage.writer()
        if writer is None:
            raise under_storage_error(f"{record.uri}/{path}", "can only be read through forebay", errno.EROFS)
        return writer

    def put(
        self,
        attached: Attached,
        path: str,
        payload: Payload,
        *,
        exclusive: bool,
        in_place_of: str | None = None,
        ticket: Ticket | None = None,
    ) -> Entry:
        """Write an object. ticket: one that the caller has taken for it, and finishes.

        in_place_of: the version that there is to be until then. The storage is asked just before: a writer of
        this host cannot come between, one of another host can. Raises: as StorageWriter.put;
        UnderStorageError (exclusive: it is too large for that, EFBIG); Stale (in_place_of: there is another,
        or none).
        """
        parts, record = self._parts, attached.record
        writer = self.writer(attached, path)
        with self._writing(attached, path, ticket=ticket) as job:
            if exclusive:
                bytes_max = _exclusive_bytes_max(attached, writer, path, job)
                if payload.size > bytes_max:
                    cause = f"larger than the storage creates exclusively: {bytes_max} bytes"
                    raise under_storage_error(f"{record.uri}/{path}", cause, errno.EFBIG)
            if in_place_of is not None:
                self._refuse_other(attached, path, in_place_of)
            written = writer.put(path, payload, job, exclusive=exclusive)
            entry = as_entry(written.info, parts.lookup.now_ns())
            if record.write_mode == "cache_through" and written.is_own:
                self._keep(attached, entry, payload)
            if not parts.knowledge.written(attached, entry):
                job.leave()
        parts.store.count("write_bytes", payload.size, record.id)
        return entry

    def delete(self, attached: Attached, path: str) -> None:
        """Remove an object or an empty directory. Raises: as StorageWriter.delete."""
        writer, parts = self.writer(attached, path), self._parts
        with self._writing(attached, path):
            writer.delete(path)
            parts.knowledge.removed(attached, path, parts.lookup.now_ns())

    def rename(self, attached: Attached, path: str, target: str) -> None:
        """Give an object, or a directory where that is one act, another path.

        Raises: as StorageWriter.rename.
        """
        writer, parts = self.writer(attached, path), self._parts
        with self._writing(attached, path, target) as job:
            info = writer.rename(path, target, job)
            asked_ns = parts.lookup.now_ns()
            if info.is_dir:
                parts.knowledge.gone(attached, path, asked_ns)
                parts.knowledge.gone(attached, target, asked_ns)
                parts.knowledge.made(attached, target)
            else:
                parts.knowledge.removed(attached, path, asked_ns)
                if not parts.knowledge.written(attached, as_entry(info, asked_ns)):
                    job.leave()

    def mkdir(self, attached: Attached, path: str) -> None:
        """Make a directory and those above it. Raises: as StorageWriter.mkdir."""
        writer = self.writer(attached, path)
        with self._writing(attached, path):
            writer.mkdir(path)
            self._parts.knowledge.made(attached, path)

    def open(self, name: str, attached: Attached, path: str, *, exclusive: bool) -> WritableFile:
        """Open an object to be written.

        Raises: as ``writer``; FileExistsError (exclusive); UnderStorageError (exclusive: the storage creates
        nothing so, EOPNOTSUPP).
        """
        writer, bytes_max = self.writer(attached, path), None
        if exclusive:
            with self._holding(attached, path) as job:
                self._refuse_existing(attached, path)
                bytes_max = _exclusive_bytes_max(attached, writer, path, job)
        target = _Target(self, attached, path, exclusive=exclusive)
        return WritableFile(name, "xb" if exclusive else "wb", target, bytes_max)

    def append(self, name: str, attached: Attached, path: str) -> WritableFile:
        """Open an object to write on at its end, with what it has already staged.

        Raises: as ``writer``; as UnderStorage.read_range; OSError (staging).
        """
        self.writer(attached, path)
        entry = self._parts.lookup.ask(attached, path)
        refuse_directory(attached, entry)
        file = WritableFile(name, "ab", _Target(self, attached, path, in_place_of=entry.version))
        try:
            for view in self._parts.views(attached, entry):
                file.write(view)
        except BaseException:
            file.discard()
            raise
        return file

    def is_guarded(self, attached: Attached, path: str, size: int) -> bool:
        """Say whether the storage itself would refuse to create an object of that size where there is one.

        Raises: as ``writer``.
        """
        writer = self.writer(attached, path)
        with self._holding(attached, path) as job:
            return size <= writer.exclusive_bytes_max(path, job) > 0

    def stage(self, attached: Attached, path: str) -> Staged:
        """Begin a staged file for an object. Raises: OSError."""
        parts = self._parts
        ticket = parts.tickets.take(_facts(attached, path))
        try:
            ticket.jot(staged=parts.staging.path_of(ticket.name))
            return Staged(ticket, parts.staging.create(ticket.name))
        except BaseException:
            parts.tickets.finish(ticket)
            raise

    def unstage(self, staged: Staged) -> None:
        """Remove a staged file, and give its ticket back."""
        staged.file.close()
        self._parts.tickets.finish(staged.ticket)

    def same_dataset(self, attached: Attached) -> Attached:
        """Return the dataset as it is attached now. Raises: NotAttached (it was detached since)."""
        name = attached.record.name
        found = self._parts.datasets.find(name)
        if found.record.id != attached.record.id:
            raise NotAttached(f"the dataset {name!r} was detached since")
        return found

    def close(self) -> None:
        """Refuse what comes from now on; files that are open are written no more."""
        self._closed = True
        self._parts.tickets.close()
        self._parts.turns.close()

    @contextmanager
    def _writing(self, attached: Attached, *paths: str, ticket: Ticket | None = None) -> Iterator[_Job]:
        """Do one write, count it, and see to what is known if it fails."""
        store, dataset_id = self._parts.store, attached.record.id
        with self._holding(attached, *paths, ticket=ticket) as job:
            try:
                yield job
            except BaseException as error:
                store.count("write_errors", 1, dataset_id)
                self._learn_from(attached, paths, error, job)
                raise
        store.count("writes", 1, dataset_id)

    @contextmanager
    def _holding(self, attached: Attached, *paths: str, ticket: Ticket | None = None) -> Iterator[_Job]:
        """Hold the paths against other writers of the host, and a ticket for them."""
        parts = self._parts
        taken = parts.tickets.open(_facts(attached, *paths)) if ticket is None else nullcontext(ticket)
        with parts.turns.at(attached.record.id, paths), taken as own:
            try:
                yield _Job(own, parts.pool)
            finally:
                if throttled := attached.newly_throttled():
                    parts.store.count("source_throttled", throttled, attached.record.id)

    def _learn_from(
        self, attached: Attached, paths: Sequence[str], error: BaseException, job: WriteJob
    ) -> None:
        """Have looked up anew what a failure leaves in doubt, or shows to be other than it was known."""
        if isinstance(error, FileExistsError | NotFound | Stale):
            for path in paths:
                self._parts.lookup.learn(attached, path)
            return
        is_refused = isinstance(error, OSError) and (
            not isinstance(error, UnderStorageError | TimeoutError) or error.errno in _REFUSALS
        )
        if is_refused:
            return
        self._parts.knowledge.doubt(attached, paths, trees=len(paths) > 1)
        if isinstance(error, TimeoutError) or not isinstance(error, Exception):
            # A request may still be on its way, and do its work after it has been looked up.
            job.leave()

    def _refuse_existing(self, attached: Attached, path: str) -> None:
        try:
            self._parts.lookup.ask(attached, path)
        except NotFound:
            return
        raise already_there(f"{attached.record.uri}/{path}")

    def _refuse_other(self, attached: Attached, path: str, version: str) -> None:
        try:
            found = self._parts.lookup.ask(attached, path).version
        except NotFound:
            found = "none"
        if found != version:
            raise stale(f"{attached.record.uri}/{path}", version, found)

    def _keep(self, attached: Attached, entry: Entry, payload: Payload) -> None:
        """Put the blocks into the store; what is not admitted is fetched when it is read."""
        admission = self._parts.admission
        is_refused = admission.refuses(attached, entry.path)
        for block in blocks_of(attached, entry, 0, entry.size, self._parts.store.block_bytes):
            if is_refused or not admission.is_kept(attached, entry.path, block.offset):
                # Without reading it once more for nothing.
                admission.turn_away(attached, block.key, block.length)
                continue
            data = memoryview(payload.read(block.offset, block.length))
            admission.put(attached, block, data)


class _Target:
    """An object that is open to be written."""

    def __init__(
        self,
        writes: Writes,
        attached: Attached,
        path: str,
        *,
        exclusive: bool = False,
        in_place_of: str | None = None,
    ) -> None:
        self._in_place_of: Final = in_place_of
        self._writes: Final = writes
        self._attached: Final = attached
        self._path: Final = path
        self._exclusive: Final = exclusive

    def stage(self) -> Staged:
        return self._writes.stage(self._attached, self._path)

    def unstage(self, staged: Staged) -> None:
        self._writes.unstage(staged)

    def commit(self, payload: Payload, staged: Staged | None) -> None:
        attached, ticket = self._writes.same_dataset(self._attached), staged and staged.ticket
        self._writes.put(
            attached,
            self._path,
            payload,
            exclusive=self._exclusive,
            in_place_of=self._in_place_of,
            ticket=ticket,
        )


def _exclusive_bytes_max(attached: Attached, writer: StorageWriter, path: str, job: WriteJob) -> int:
    bytes_max = writer.exclusive_bytes_max(path, job)
    if bytes_max == 0:
        uri = f"{attached.record.uri}/{path}"
        cause = "the storage creates nothing exclusively: it would write over what another has written"
        raise under_storage_error(uri, cause, errno.EOPNOTSUPP)
    return bytes_max


def _words_of_manifest(attached: Attached) -> str:
    """Say why nothing is written where a manifest is shown: what was written would not be to be seen."""
    name, listed = attached.record.name, attached.listed
    if listed is None:
        return f"the dataset {name!r} shows no more than a manifest; attach it without manifest_only"
    if attached.is_version:
        return f"{attached.label} is a version, which never changes; write to {name}"
    return (
        f"the dataset {name!r} shows manifest {listed.version!r}, which never changes; put none in use first"
    )


def _facts(attached: Attached, *paths: str) -> dict[str, Any]:
    """Return by what a write that was killed is found: where it went, without any secret."""
    record = attached.record
    # Two paths are those of a rename, which may be of a directory.
    where = {"uri": record.uri, "options": dict(record.options)}
    return {"dataset": record.id, **where, "paths": paths, "trees": len(paths) > 1}
