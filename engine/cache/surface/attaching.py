"""Datasets: attaching under storages by name, and letting go of them."""

from __future__ import annotations

import errno
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from forebay.cache.admission import spaces_of
from forebay.cache.attach import dataset_record, quota_bytes_of
from forebay.cache.runtime import count_request
from forebay.cache.surface.base import CacheBase
from forebay.errors import NotFound, under_storage_error
from forebay.meta import Dataset
from forebay.ufs import RequestKind, UnderStorage, open_storage


class Attaching(CacheBase):
    """The verbs for datasets."""

    def attach(
        self,
        name: str,
        uri: str,
        *,
        endpoint_url: str | None = None,
        max_age: float | None = 60.0,
        negative_ttl: float = 0.0,
        retention: str = "epoch",
        manifest_only: bool = False,
        writable: bool = False,
        write_mode: str = "through",
        quota: int | str | None = None,
        local_copy: str | None = None,
        **options: Any,
    ) -> Dataset:
        """Attach an under storage as a dataset, for every process and until it is detached.

        If it is new, or its settings change, the under storage is asked whether it is there.
        max_age: None (immutable), 0 (checked at each use) or seconds. negative_ttl: seconds for which an
        absent object is taken to stay so. retention: epoch, s3fifo or lru. manifest_only: show what the
        manifest in use lists, and nothing where none is. writable: whether it may be changed through the
        cache; write_mode: through, or cache_through, by which what is written is cached as well. quota: as
        for ``set_quota``. local_copy: whether this host keeps what its peers answer for: never, always, or
        if_room (only while there is much room, and first to go); None: as its role in the group has it.
        options are the under storage's: for s3:// region, profile, anonymous, timeout_s, attempts. Attaching
        the same URI again changes the settings; the manifest in use stays. Credentials are found at each use
        and never kept.
        Raises: ConfigError (a bad name, URI or option; the name stands for another URI; a secret); as
        ``stat``.
        """
        if endpoint_url is not None:
            options["endpoint_url"] = endpoint_url
        record = dataset_record(
            name,
            uri,
            max_age=max_age,
            negative_ttl=negative_ttl,
            retention=retention,
            manifest_only=manifest_only,
            writable=writable,
            write_mode=write_mode,
            quota=quota,
            local_copy=local_copy,
            options=options,
        )
        metadata = self._runtime().metadata
        known = metadata.catalog.datasets().get(name)
        if known is not None and record == replace(known, id=0, manifest=None, manifest_before=None):
            return known
        asked: list[RequestKind] = []
        storage = open_storage(record.uri, record.options, self._schemes)
        storage.on_request = asked.append
        try:
            _look_at_root(storage, record)
            if record.writable and storage.writer() is None:
                raise under_storage_error(record.uri, "can only be read through forebay", errno.EROFS)
        finally:
            storage.close()
        with nullcontext() if known is None else metadata.entries.announcing(known.id):
            attached = metadata.catalog.attach(record)
        self._store.set_quota(attached.id, attached.quota_bytes)
        for kind in asked:
            count_request(self._store, attached.id, kind)
        return attached

    def set_quota(self, name: str, quota: int | str | None) -> Dataset:
        """Cache no more of a dataset than that, for every process; None: no limit.

        quota: bytes, or text as in "10GiB". Over it nothing of the dataset is admitted, and reads go on; what
        is cached already stays. Raises: NotAttached; ConfigError (no size).
        """
        record = self._runtime().metadata.catalog.set_quota(name, quota_bytes_of(quota))
        # Whoever next looks a path up tells the store as well; a load that runs does not until its end.
        self._store.set_quota(record.id, record.quota_bytes)
        return record

    def detach(self, name: str) -> None:
        """Detach a dataset, free what is cached of it and delete its manifests; the source is not touched.

        Raises: NotAttached.
        """
        runtime = self._runtime()
        record = runtime.metadata.catalog.detach(name)
        runtime.metadata.entries.drop_dataset(record.id)
        for space in spaces_of(record.id):
            self._store.free_dataset(space)
        runtime.retirement.sweep()

    def datasets(self) -> list[Dataset]:
        """Return the attached datasets, by name."""
        return self._runtime().datasets.records()


def _look_at_root(storage: UnderStorage, record: Dataset) -> None:
    """See that the root is there. Raises: as UnderStorage.stat."""
    try:
        storage.stat("")
    except NotFound:
        # Where directories come with the objects in them, what is to be written is the first.
        if storage.has_directories or not record.writable:
            raise
