"""The cache over under storages: paths in, views of bytes out.

``open`` joins settings and makes a Cache. A Cache joins the block store, the metadata, the under storages
and the peers, and is the only thing that does. It holds no cached bytes and decides nothing about them:
that is the store's.
"""

from __future__ import annotations

import errno
import grp
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from forebay.cache_datasets import Attached, Datasets
from forebay.cache_fetch import Fetcher
from forebay.cache_lookup import Lookup
from forebay.cache_paths import check_dataset_name, split_path
from forebay.cache_process import PerProcess
from forebay.cache_read import Reader
from forebay.clock import BootClock, Clock
from forebay.config import (
    FORMAT_FOLDER,
    READ_BYTES_MAX_DEFAULT,
    Tier,
    check_platform,
    default_cache_dir,
    default_tiers,
    is_new,
    load_settings,
    nearest,
    parse_bytes,
    validate_tiers,
)
from forebay.errors import Closed, ConfigError, NotFound
from forebay.meta import Dataset, Entry, Metadata
from forebay.remote import NoRemote, Remote
from forebay.ufs import SCHEMES, StorageFactory, open_storage

if TYPE_CHECKING:
    from forebay.store import BlockStore, CheckReport, View

RETENTIONS: Final = ("epoch", "s3fifo", "lru")

_FETCH_THREADS: Final = 16


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What a path names: an object with its size and version, or a directory, which has neither."""

    path: str
    size: int
    mtime_ns: int
    version: str
    is_dir: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class _Parts:
    """What a cache is made of, the same in every process."""

    folder: str
    remote: Remote
    clock: Clock
    schemes: Mapping[str, StorageFactory]
    max_read_bytes: int
    shared_group: int | None
    read_only: bool


class _Runtime:
    """Everything of a cache that belongs to one process: handles, connections, threads."""

    def __init__(self, parts: _Parts, store: BlockStore) -> None:
        self.metadata = Metadata(parts.folder, shared_group=parts.shared_group, read_only=parts.read_only)
        self.lookup = Lookup(self.metadata.entries, parts.clock)
        self.datasets = Datasets(self.metadata.catalog, parts.schemes, partial(_set_retention, parts, store))
        self.pool = ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="forebay-fetch")
        fetcher = Fetcher(store, parts.remote, self.lookup, store.block_bytes)
        self.reader = Reader(self.lookup, fetcher, self.pool, parts.max_read_bytes)

    def close(self) -> None:
        self.pool.shutdown()
        self.datasets.close()
        self.metadata.close()


def _set_retention(parts: _Parts, store: BlockStore, dataset: Dataset) -> None:
    if not parts.read_only:
        store.set_retention(dataset.id, dataset.retention)


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
        **store_options: Any,
    ) -> None:
        """Open the cache directory, making it if it is new.

        tiers: None for those that the directory remembers, or for the default ones if it is new. schemes
        replaces the table of under storages. store_options are BlockStore's. Raises: ConfigError (names
        what and where).
        """
        check_platform()
        from forebay.store import BlockStore

        self._path: Final = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self._tiers: Final = None if tiers is None else validate_tiers(tiers)
        self._arguments: Final[dict[str, Any]] = {
            "remote": remote,
            "clock": clock,
            "schemes": schemes,
            "max_read_bytes": max_read_bytes,
            **store_options,
        }
        self._remote: Final = remote or NoRemote()
        made_with = self._tiers or (default_tiers(self._path) if is_new(self._path) else None)
        self._store: Final = BlockStore(self._path, made_with, **store_options)
        parts = _Parts(
            folder=os.path.join(self._path, FORMAT_FOLDER, "meta"),
            remote=self._remote,
            clock=clock or BootClock(),
            schemes=SCHEMES if schemes is None else schemes,
            max_read_bytes=parse_bytes(max_read_bytes, "max_read_bytes"),
            shared_group=_group_id(store_options.get("shared_group")),
            read_only=bool(store_options.get("read_only", False)),
        )
        self._schemes: Final = parts.schemes
        self._process: Final = PerProcess(partial(_Runtime, parts, self._store))
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
        retention: str = "epoch",
        **options: Any,
    ) -> Dataset:
        """Attach an under storage as a dataset, for every process and until it is detached.

        If it is new, or its settings change, the under storage is asked whether it is there.
        max_age: None (immutable), 0 (checked at each use) or seconds. retention: epoch, s3fifo or lru.
        options are the under storage's: for s3:// region, profile, anonymous, timeout_s, attempts.
        Attaching the same URI again changes the settings. Credentials are found at each use and never kept.
        Raises: ConfigError (a bad name, URI or option; the name stands for another URI; a secret); as
        ``stat``.
        """
        check_dataset_name(name)
        if endpoint_url is not None:
            options["endpoint_url"] = endpoint_url
        record = Dataset(name, _plain_uri(uri), 0, _max_age(max_age), _retention(retention), options)
        catalog = self._runtime().metadata.catalog
        known = catalog.datasets().get(name)
        if known is not None and record == replace(known, id=0):
            return known
        storage = open_storage(record.uri, record.options, self._schemes)
        try:
            storage.stat("")
        finally:
            storage.close()
        return catalog.attach(record)

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

        What lies in one block of a memory tier is not copied. A longer range is gathered into a buffer, up
        to max_read_bytes. Blocking: what is not cached is fetched. Raises: ValueError (negative figures, or
        too long).
        """
        runtime = self._runtime()
        attached, rest = _object(runtime, path)
        return runtime.reader.read(attached, rest, offset, length)

    def read_many(self, paths: Iterable[str]) -> list[View]:
        """Return views of whole objects, in the order of the paths; what is not cached is fetched together.

        Raises: what the first of the paths raises that cannot be read.
        """
        runtime = self._runtime()
        return runtime.reader.read_many([_object(runtime, path) for path in paths])

    def readinto(self, path: str, buffer: Any, offset: int = 0) -> int:
        """Fill a buffer from offset on; return how many bytes, fewer only at the object's end.

        The buffer is writable and C-contiguous; after an exception its content means nothing.
        Raises: TypeError (another buffer).
        """
        target = memoryview(buffer).cast("B")
        if target.readonly:
            raise TypeError("readinto needs a writable buffer")
        runtime = self._runtime()
        attached, rest = _object(runtime, path)
        return runtime.reader.readinto(attached, rest, target, offset)

    def stat(self, path: str) -> FileStatus:
        """Describe an object or a directory. Raises: NotFound."""
        runtime = self._runtime()
        name, rest = split_path(path)
        attached = runtime.datasets.find(name)
        if not rest:
            return FileStatus(name, 0, 0, "", is_dir=True)
        return _status(name, runtime.lookup.stat(attached, rest))

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

        Raises: as ``scandir``.
        """
        if not path:
            return [dataset.name for dataset in self.datasets()]
        # What is both an object and a directory has one name.
        return list(dict.fromkeys(status.name for status in self.scandir(path)))

    def scandir(self, path: str) -> list[FileStatus]:
        """Describe what lies in a directory, in the order of names.

        Raises: NotFound; NotADirectoryError.
        """
        runtime = self._runtime()
        name, rest = split_path(path)
        attached = runtime.datasets.find(name)
        try:
            children = runtime.lookup.children(attached, rest)
        except NotFound:
            if rest and not runtime.lookup.stat(attached, rest).is_dir:
                raise NotADirectoryError(errno.ENOTDIR, "is an object, not a directory", path) from None
            raise
        return [_status(name, entry) for entry in children]

    def status(self) -> dict[str, Any]:
        """Return the status of the store, host-wide, and the attached datasets; fit for JSON."""
        attached = [dataset.to_json() for dataset in self.datasets()]
        return {"path": self._path, **self._store.status(), "attached": attached}

    def check(self, repair: bool = False) -> CheckReport:
        """Verify the store's structure and every cached byte; repair drops what is wrong. May take long."""
        self._runtime()
        return self._store.check(repair)

    def close(self) -> None:
        """Give up everything that this process holds of the cache; may be called twice.

        Views that are out stay valid until they are released.
        """
        if self._closed:
            return
        self._closed = True
        runtime = self._process.take()
        if runtime is not None:
            runtime.close()
        self._remote.close()
        self._store.close()

    def _runtime(self) -> _Runtime:
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
    return Cache(path or settings.cache_dir or default_cache_dir(), chosen_tiers, **options)


def _reopen(path: str, tiers: tuple[Tier, ...] | None, arguments: dict[str, Any]) -> Cache:
    return Cache(path, tiers, **arguments)


def _object(runtime: _Runtime, path: str) -> tuple[Attached, str]:
    """Return the dataset and the path in it. Raises: IsADirectoryError (the path is a dataset itself)."""
    name, rest = split_path(path)
    attached = runtime.datasets.find(name)
    if not rest:
        raise IsADirectoryError(errno.EISDIR, "is a dataset", path)
    return attached, rest


def _status(dataset: str, entry: Entry) -> FileStatus:
    return FileStatus(f"{dataset}/{entry.path}", entry.size, entry.mtime_ns, entry.version, entry.is_dir)


def _plain_uri(uri: str) -> str:
    """Take the slash off the end, so that one place has one URI."""
    stripped = uri.rstrip("/")
    return stripped if "://" in stripped else uri


def _max_age(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ConfigError(f"max_age: {value!r} is neither None (immutable) nor seconds, 0 or more")
    return float(value)


def _retention(value: str) -> str:
    if value not in RETENTIONS:
        known = ", ".join(RETENTIONS)
        raise ConfigError(
            f"retention: {value!r} is unknown{nearest(str(value), RETENTIONS)}; there are {known}"
        )
    return value


def _group_id(group: str | int | None) -> int | None:
    """Return the id of a group given by name or id. Raises: ConfigError (no such group)."""
    if group is None or isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigError(f"shared_group: there is no group {group!r}") from None
