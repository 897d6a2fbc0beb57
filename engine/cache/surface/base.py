"""What all of a Cache's surface stands on: opening, closing, pickling, and the parts of the process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, Final, Self

from forebay.cache.attach import group_id
from forebay.cache.datasets import Attached
from forebay.cache.paths import split_path
from forebay.cache.pool import FetchLimits
from forebay.cache.process import PerProcess
from forebay.cache.record.recorder import Recorder
from forebay.cache.runtime import Parts, Runtime
from forebay.clock import BootClock, Clock
from forebay.config import (
    FORMAT_FOLDER,
    MIB,
    READ_BYTES_MAX_DEFAULT,
    STAGING_BYTES_MAX_DEFAULT,
    Tier,
    check_platform,
    default_tiers,
    is_new,
    parse_bytes,
    validate_tiers,
)
from forebay.errors import Closed
from forebay.remote import NoRemote, Remote
from forebay.ufs import SCHEMES, StorageFactory

_LIMITS: Final = frozenset(field.name for field in fields(FetchLimits))
# More than 131,072 look-ups, of 70 to 80 bytes each.
_RECENT_BYTES_MAX: Final = 12 * MIB


class CacheBase:
    """An open cache directory, without the verbs. Pickles as its configuration, and survives fork."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        tiers: Iterable[Tier] | None = None,
        *,
        remote: Remote | None = None,
        clock: Clock | None = None,
        schemes: Mapping[str, StorageFactory] | None = None,
        max_read_bytes: int | str = READ_BYTES_MAX_DEFAULT,
        max_recent_bytes: int | str = _RECENT_BYTES_MAX,
        record: str | None = None,
        staging_dir: str | os.PathLike[str] | None = None,
        staging_max: int | str = STAGING_BYTES_MAX_DEFAULT,
        prices: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        """Open the cache directory, making it if it is new.

        tiers: None for those that the directory remembers, or for the default ones if it is new. schemes
        replaces the table of under storages. max_recent_bytes: memory for look-ups that this process keeps;
        0 keeps none. record: the trace that this process is to take part in, if it is being recorded.
        staging_dir, staging_max: where files that are being written lie, by default in the cache directory,
        and how many bytes of them there may be. prices: a price file, read when needed; None for prices.toml
        in the directory, if there is one. options are those of FetchLimits (fetch_threads, in_flight_max,
        fetch_memory, readahead_max) and BlockStore's. Raises: ConfigError (names what and where).
        """
        check_platform()
        from forebay.cache._snapshot import Snapshots
        from forebay.meta import Recent
        from forebay.store import BlockStore

        self._path: Final = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self._tiers: Final = None if tiers is None else validate_tiers(tiers)
        self._arguments: Final[dict[str, Any]] = {
            "remote": remote,
            "clock": clock,
            "schemes": schemes,
            "max_read_bytes": max_read_bytes,
            "max_recent_bytes": max_recent_bytes,
            "record": record,
            "staging_dir": None if staging_dir is None else os.path.abspath(os.path.expanduser(staging_dir)),
            "staging_max": staging_max,
            "prices": prices,
            **options,
        }
        self._prices: Final = None if prices is None else os.path.abspath(os.path.expanduser(prices))
        self._remote: Final = remote or NoRemote()
        self._recent: Final = Recent(parse_bytes(max_recent_bytes, "max_recent_bytes"))
        limits = FetchLimits(**{name: options.pop(name) for name in _LIMITS & options.keys()})
        made_with = self._tiers or (default_tiers(self._path) if is_new(self._path) else None)
        self._store: Final = BlockStore(self._path, made_with, **options)
        self._snapshots: Final = Snapshots(self._store, self._recent)
        parts = Parts(
            folder=os.path.join(self._path, FORMAT_FOLDER, "meta"),
            store=self._store,
            remote=self._remote,
            clock=clock or BootClock(),
            schemes=SCHEMES if schemes is None else schemes,
            limits=limits,
            recent=self._recent,
            max_read_bytes=parse_bytes(max_read_bytes, "max_read_bytes"),
            staging_dir=self._arguments["staging_dir"],
            staging_max=parse_bytes(staging_max, "staging_max"),
            shared_group=group_id(options.get("shared_group")),
            read_only=bool(options.get("read_only", False)),
        )
        self._schemes: Final = parts.schemes
        self._process: Final = PerProcess(partial(Runtime, parts))
        self._closed = False
        self._begin(record)

    @property
    def path(self) -> str:
        """The cache directory."""
        return self._path

    @property
    def settings_folder(self) -> str:
        """The folder in it for what whoever serves it keeps beside the metadata."""
        return os.path.join(self._path, FORMAT_FOLDER)

    @property
    def closed(self) -> bool:
        """Whether it was closed, in this process."""
        return self._closed

    def close(self) -> None:
        """Give up everything that this process holds of the cache; may be called twice.

        Views that are out stay valid until they are released.
        """
        if self._closed:
            return
        self._closed = True
        if self._recorder is not None:
            self._recorder.close()
        # What is remembered holds on to a word of the shared memory, and with that to the file.
        self._recent.clear()
        runtime = self._process.take()
        if runtime is not None:
            runtime.close()
        self._remote.close()
        self._store.close()

    def _begin(self, record: str | None) -> None:
        """Open what belongs to this process, and take part in that trace if it is being recorded."""
        try:
            runtime = self._runtime()
            # What is read is told to it; None, and no reader is the slower for it.
            self._recorder: Recorder | None = None if record is None else runtime.traces.join(record)
        except BaseException:
            self._store.close()
            raise

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
        return _reopen, (type(self), self._path, self._tiers, self._arguments)

    def __repr__(self) -> str:
        """Name the directory."""
        return f"<forebay.{type(self).__name__} {self._path}{' (closed)' if self._closed else ''}>"


def _reopen(
    kind: type[CacheBase], path: str, tiers: tuple[Tier, ...] | None, arguments: dict[str, Any]
) -> CacheBase:
    return kind(path, tiers, **arguments)


def objects_at(runtime: Runtime, paths: Iterable[str]) -> list[tuple[str, Attached, str]]:
    """Return each path with its dataset and the path in it; each dataset is looked up once.

    So all are of one version. Raises: as ``object_at``.
    """
    found: list[tuple[str, Attached, str]] = []
    datasets: dict[str, Attached] = {}
    for path in paths:
        label, rest = split_path(path)
        if not rest:
            raise IsADirectoryError(errno.EISDIR, "is a dataset", path)
        attached = datasets.get(label)
        if attached is None:
            attached = datasets[label] = runtime.datasets.find(label)
        found.append((path, attached, rest))
    return found


def object_at(runtime: Runtime, path: str) -> tuple[Attached, str]:
    """Return the dataset and the path in it. Raises: IsADirectoryError (the path is a dataset itself)."""
    attached, rest = runtime.locate(path)
    if not rest:
        raise IsADirectoryError(errno.EISDIR, "is a dataset", path)
    return attached, rest


def object_to_write(runtime: Runtime, path: str) -> tuple[Attached, str]:
    """Return as ``object_at``. Raises: IsADirectoryError (a slash at the end is a directory's)."""
    attached, rest = object_at(runtime, path)
    if path.endswith("/"):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return attached, rest
