"""The surface of the cache: paths in, views of bytes out.

``open`` joins settings and makes a Cache. A Cache holds no cached bytes and decides nothing about them: that
is the store's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from forebay.cache.attach import dataset_record, group_id
from forebay.cache.datasets import Attached
from forebay.cache.file import CachedFile, FileSource
from forebay.cache.loads.filelist import FileList
from forebay.cache.loads.load import LoadJob, load_request
from forebay.cache.lookup import Known
from forebay.cache.pool import FetchLimits
from forebay.cache.process import PerProcess
from forebay.cache.runtime import Parts, Runtime
from forebay.cache.status import FileStatus, SyncReport, status_of
from forebay.cache.usage import Usage, usage_of
from forebay.clock import BootClock, Clock
from forebay.config import (
    FORMAT_FOLDER,
    READ_BYTES_MAX_DEFAULT,
    Tier,
    check_platform,
    default_cache_dir,
    default_tiers,
    is_new,
    parse_bytes,
    validate_tiers,
)
from forebay.errors import Closed, NotFound
from forebay.meta import Dataset, Entry
from forebay.remote import NoRemote, Remote
from forebay.settings import load_settings
from forebay.ufs import SCHEMES, StorageFactory, open_storage

if TYPE_CHECKING:
    from forebay.store import CheckReport, View

_LIMITS: Final = frozenset(field.name for field in fields(FetchLimits))
# What this many look-ups take is about 10 MiB.
_RECENT_MAX: Final = 16_384


class Cache:
    """A host's cache of attached datasets, shared by every process that opens the same directory.

    A context manager; it pickles as its configuration, survives fork, and may be used by any thread. Paths
    are ``dataset/rest/of/path``. Every method raises NotAttached (no such dataset), ValueError (a malformed
    path), Closed; those that ask the under storage raise NotFound only when it says so itself,
    PermissionError, TimeoutError and, for all else, UnderStorageError. No read fails because the cache is
    full.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        tiers: Iterable[Tier] | None = None,
        *,
        remote: Remote | None = None,
        clock: Clock | None = None,
        schemes: Mapping[str, StorageFactory] | None = None,
        max_read_bytes: int | str = READ_BYTES_MAX_DEFAULT,
        recent_max: int = _RECENT_MAX,
        **options: Any,
    ) -> None:
        """Open the cache directory, making it if it is new.

        tiers: None for those that the directory remembers, or for the default ones if it is new. schemes
        replaces the table of under storages. recent_max: look-ups that this process keeps. options are those
        of FetchLimits (fetch_threads, in_flight_max, fetch_memory, readahead_max) and BlockStore's. Raises:
        ConfigError (names what and where).
        """
        check_platform()
        from forebay.meta import Recent
        from forebay.store import BlockStore

        self._path: Final = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self._tiers: Final = None if tiers is None else validate_tiers(tiers)
        self._arguments: Final[dict[str, Any]] = {
            "remote": remote,
            "clock": clock,
            "schemes": schemes,
            "max_read_bytes": max_read_bytes,
            "recent_max": recent_max,
            **options,
        }
        self._remote: Final = remote or NoRemote()
        self._recent: Final = Recent(recent_max)
        limits = FetchLimits(**{name: options.pop(name) for name in _LIMITS & options.keys()})
        made_with = self._tiers or (default_tiers(self._path) if is_new(self._path) else None)
        self._store: Final = BlockStore(self._path, made_with, **options)
        parts = Parts(
            folder=os.path.join(self._path, FORMAT_FOLDER, "meta"),
            store=self._store,
            remote=self._remote,
            clock=clock or BootClock(),
            schemes=SCHEMES if schemes is None else schemes,
            limits=limits,
            recent=self._recent,
            max_read_bytes=parse_bytes(max_read_bytes, "max_read_bytes"),
            shared_group=group_id(options.get("shared_group")),
            read_only=bool(options.get("read_only", False)),
        )
        self._schemes: Final = parts.schemes
        self._process: Final = PerProcess(partial(Runtime, parts))
        self._closed = False
        try:
            self._runtime()
        except BaseException:
            self._store.close()
            raise

    @property
    def path(self) -> str:
        """The cache directory."""
        return self._path

    def attach(
        self,
        name: str,
        uri: str,
        *,
        endpoint_url: str | None = None,
        max_age: float | None = 60.0,
        negative_ttl: float = 0.0,
        retention: str = "epoch",
        **options: Any,
    ) -> Dataset:
        """Attach an under storage as a dataset, for every process and until it is detached.

        If it is new, or its settings change, the under storage is asked whether it is there.
        max_age: None (immutable), 0 (checked at each use) or seconds. negative_ttl: seconds for which an
        absent object is taken to stay so. retention: epoch, s3fifo or lru. options are the under storage's:
        for s3:// region, profile, anonymous, timeout_s, attempts. Attaching the same URI again changes the
        settings. Credentials are found at each use and never kept.
        Raises: ConfigError (a bad name, URI or option; the name stands for another URI; a secret); as
        ``stat``.
        """
        if endpoint_url is not None:
            options["endpoint_url"] = endpoint_url
        record = dataset_record(
            name, uri, max_age=max_age, negative_ttl=negative_ttl, retention=retention, options=options
        )
        metadata = self._runtime().metadata
        known = metadata.catalog.datasets().get(name)
        if known is not None and record == replace(known, id=0):
            return known
        storage = open_storage(record.uri, record.options, self._schemes)
        try:
            storage.stat("")
        finally:
            storage.close()
        attached = metadata.catalog.attach(record)
        if known is not None:
            metadata.entries.announce(attached.id)
        return attached

    def detach(self, name: str) -> None:
        """Detach a dataset and free what is cached of it; the under storage is not touched.

        Raises: NotAttached.
        """
        runtime = self._runtime()
        record = runtime.metadata.catalog.detach(name)
        runtime.metadata.entries.drop_dataset(record.id)
        self._store.free_dataset(record.id)

    def datasets(self) -> list[Dataset]:
        """Return the attached datasets, by name."""
        return self._runtime().datasets.records()

    def read(self, path: str, offset: int = 0, length: int | None = None) -> View:
        """Return a read-only view of length bytes from offset on, or of all; fewer at the object's end.

        What lies in one block of a memory tier, or in a file that lies there whole, is not copied. A longer
        range is gathered into a buffer, up to max_read_bytes. Blocking: what is not cached is fetched.
        Raises: ValueError (negative figures, or too long).
        """
        known = self._known_object(path)
        if known is None:
            runtime = self._runtime()
            attached, rest = _object(runtime, path)
            return runtime.reader.read(attached, rest, offset, length)
        is_missed = False
        if known.key is not None and offset == 0 and length is None:
            view = self._store.get(known.key)
            if view is not None:
                return view
            is_missed = True
        runtime = self._runtime()
        attached, _ = _object(runtime, path)
        return runtime.reader.read_known(attached, known, offset, length, is_missed=is_missed)

    def read_many(self, paths: Iterable[str]) -> list[View]:
        """Return views of whole objects, in the order of the paths; what is not cached is fetched together.

        Raises: what the first of the paths raises that cannot be read.
        """
        runtime = self._runtime()
        return runtime.reader.read_many(
            [(*_object(runtime, path), self._known_object(path)) for path in paths]
        )

    def readinto(self, path: str, buffer: Any, offset: int = 0) -> int:
        """Fill a buffer from offset on; return how many bytes, fewer only at the object's end.

        The buffer is writable and C-contiguous; after an exception its content means nothing.
        Raises: TypeError (another buffer).
        """
        target = memoryview(buffer).cast("B")
        if target.readonly:
            raise TypeError("readinto needs a writable buffer")
        known, is_missed = self._known_object(path), False
        if known is not None and known.key is not None and offset == 0 and len(target) >= known.entry.size:
            copied = self._store.readinto(known.key, target)
            if copied is not None:
                return copied
            is_missed = True
        runtime = self._runtime()
        attached, rest = _object(runtime, path)
        if known is None:
            return runtime.reader.readinto(attached, rest, target, offset)
        return runtime.reader.readinto_known(attached, known, target, offset, is_missed=is_missed)

    def views(self, path: str) -> Iterator[View]:
        """Yield an object's blocks in order, each a view, fetching ahead: for what is too large for `read`.

        All are of one version. Raises: while it is iterated, Stale (the object has another version by now).
        """
        runtime = self._runtime()
        attached, rest = _object(runtime, path)
        return runtime.reader.views(attached, runtime.reader.entry(attached, rest))

    def open(self, path: str, mode: str = "rb") -> CachedFile:
        """Open an object as a binary file that seeks, of the version that it has now.

        Raises: ValueError (a mode other than "rb").
        """
        if mode not in ("r", "rb"):
            raise ValueError(f"mode {mode!r}: objects are opened for reading, as binary files: 'rb'")
        runtime = self._runtime()
        attached, rest = _object(runtime, path)
        entry = runtime.reader.entry(attached, rest)
        return CachedFile(path, entry, lambda entry: self._source(path, entry))

    def stat(self, path: str) -> FileStatus:
        """Describe an object or a directory. Raises: NotFound."""
        known: Known | None = self._recent.get(path)
        if known is not None and not self._closed:
            return status_of(known.dataset, known.entry)
        attached, rest = self._runtime().locate(path)
        name = attached.record.name
        if not rest:
            return FileStatus(name, 0, 0, "", is_dir=True)
        return status_of(name, self._runtime().lookup.stat(attached, rest))

    def exists(self, path: str) -> bool:
        """Say whether there is such an object or directory.

        Raises: all that ``stat`` raises but NotFound.
        """
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    def listdir(self, path: str = "") -> list[str]:
        """Return the names in a directory, in order; those of the datasets for "".

        What is both an object and a directory has one name. Raises: as ``scandir``.
        """
        if not path:
            return [dataset.name for dataset in self.datasets()]
        runtime = self._runtime()
        return runtime.tree.names(*runtime.locate(path))

    def scandir(self, path: str) -> list[FileStatus]:
        """Describe what lies in a directory, in the order of names.

        Raises: NotFound; NotADirectoryError.
        """
        runtime = self._runtime()
        return runtime.tree.statuses(*runtime.locate(path))

    def walk(self, path: str) -> Iterator[tuple[str, list[str], list[str]]]:
        """Yield (directory, names of directories in it, names of objects), then those below, as os.walk.

        Names taken out of the first list are not gone into. Raises: as ``scandir``, while it is iterated.
        """
        runtime = self._runtime()
        return runtime.tree.walk(*runtime.locate(path))

    def sync(self, path: str) -> SyncReport:
        """Ask the under storage now about all that lies at or below the path, however fresh it is.

        Returns how many objects were added, changed and removed since it was last looked at. Blocking: a
        listing for each directory.
        """
        runtime = self._runtime()
        return runtime.tree.sync(*runtime.locate(path))

    def free(self, path: str, *, data: bool = True, metadata: bool = False) -> None:
        """Drop what is cached at and below the path: bytes (pinned ones too), entries, or both.

        The under storage is not touched; what is asked for again is fetched again. Views stay good. Raises:
        OSError (another process is writing there, or is stopped).
        """
        runtime = self._runtime()
        attached, rest = runtime.locate(path)
        runtime.tree.free(attached, rest, data=data, metadata=metadata)

    def usage(self, path: str) -> Usage:
        """Count the objects at and below a path, their bytes, and how many of those are cached.

        Raises: as ``stat`` and ``scandir``.
        """
        runtime = self._runtime()
        attached, _ = runtime.locate(path)
        return usage_of(self._store, runtime.tree, attached, self.stat(path))

    def load(
        self,
        target: str,
        *,
        files: FileList | None = None,
        glob: str | None = None,
        metadata_only: bool = False,
        dry_run: bool = False,
        verify: bool = False,
        rate_limit: int | str | None = None,
        wait: bool = False,
        start: bool = True,
    ) -> LoadJob:
        """Bring a dataset, or what lies at or below a path in one, into the cache, in the background.

        files: only what this list names, relative to target: a list file, an object's URL, a stream or
        names. glob: only what matches this pattern, relative to target. metadata_only: list and remember,
        and fetch nothing. dry_run: count what would be fetched, and touch nothing. verify: read every block
        back against its checksum. rate_limit: bytes a second at most. wait: return when it has ended.
        start: False only records the job, for ``resume`` in this or another process. What is cached is
        skipped; what fails is in the job's results. Closing the cache interrupts it.
        Raises: as ``walk`` for the dataset; ValueError, TypeError (glob, files); ConfigError (rate_limit);
        OSError (the list cannot be read); PermissionError (a cache opened to be read only).
        """
        request = load_request(
            target,
            glob=glob,
            metadata_only=metadata_only,
            dry_run=dry_run,
            verify=verify,
            rate_limit=rate_limit,
        )
        job = self._runtime().loads.submit(request, files, start=start)
        if wait:
            job.wait()
        return job

    def jobs(self) -> list[LoadJob]:
        """Return the loads of this cache, whoever runs them: all that have not ended, the last that have."""
        return self._runtime().loads.jobs()

    def job(self, job_id: str) -> LoadJob:
        """Return one load. Raises: JobNotFound."""
        return self._runtime().loads.job(job_id)

    def resume(self, job_id: str) -> LoadJob:
        """Go on with a load that nobody runs, unless it is done; what is cached is skipped.

        Raises: JobNotFound.
        """
        return self._runtime().loads.resume(job_id)

    def status(self) -> dict[str, Any]:
        """Return the status of the store, host-wide, and the attached datasets; fit for JSON.

        What stands under "fetch" and "recent" is of this process.
        """
        runtime = self._runtime()
        return {
            "path": self._path,
            **self._store.status(),
            "attached": [dataset.to_json() for dataset in runtime.datasets.records()],
            "fetch": runtime.pool.status(),
            "recent": {"entries": len(self._recent), "entries_max": self._recent.capacity},
        }

    def check(self, repair: bool = False) -> CheckReport:
        """Verify the store's structure and every cached byte; repair drops what is wrong. May take long."""
        # A damaged catalog is an error here as well, and says how to restore it.
        self._runtime().metadata.catalog.datasets()
        return self._store.check(repair)

    def close(self) -> None:
        """Give up everything that this process holds of the cache; may be called twice.

        Views that are out stay valid until they are released.
        """
        if self._closed:
            return
        self._closed = True
        # What is remembered holds on to a word of the shared memory, and with that to the file.
        self._recent.clear()
        runtime = self._process.take()
        if runtime is not None:
            runtime.close()
        self._remote.close()
        self._store.close()

    def _known_object(self, path: str) -> Known | None:
        """Return what was looked up lately of an object."""
        known: Known | None = self._recent.get(path)
        return None if known is None or known.entry.is_dir else known

    def _source(self, path: str, entry: Entry) -> FileSource:
        """Return what an open file reads from, in the calling process."""
        runtime = self._runtime()
        return runtime.source(runtime.locate(path)[0], entry)

    def _runtime(self) -> Runtime:
        if self._closed:
            raise Closed(f"the cache {self._path} is closed")
        return self._process.get()

    def __enter__(self) -> Self:
        """Return this cache."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close."""
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the configuration: the other process opens the same directory."""
        return _reopen, (self._path, self._tiers, self._arguments)

    def __repr__(self) -> str:
        """Name the directory."""
        return f"<forebay.Cache {self._path}{' (closed)' if self._closed else ''}>"


def open(
    path: str | os.PathLike[str] | None = None,
    tiers: Iterable[Tier] | None = None,
    *,
    config_file: str | None = None,
    **options: Any,
) -> Cache:
    """Open a cache directory; what is not given comes from the environment, the TOML file or a default.

    Without a path it is $XDG_CACHE_HOME/forebay, or /var/cache/forebay for root. options are those of
    Cache. Raises: ConfigError.
    """
    check_platform()
    settings = load_settings(config_file)
    chosen_tiers = settings.tiers if tiers is None else tiers
    folder = path or settings.cache_dir or default_cache_dir()
    return Cache(folder, chosen_tiers, **{**settings.options, **options})


def _reopen(path: str, tiers: tuple[Tier, ...] | None, arguments: dict[str, Any]) -> Cache:
    return Cache(path, tiers, **arguments)


def _object(runtime: Runtime, path: str) -> tuple[Attached, str]:
    """Return the dataset and the path in it. Raises: IsADirectoryError (the path is a dataset itself)."""
    attached, rest = runtime.locate(path)
    if not rest:
        raise IsADirectoryError(errno.EISDIR, "is a dataset", path)
    return attached, rest
