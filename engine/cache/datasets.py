"""The attached datasets as a process works with them: the record, and the under storage once needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from forebay.config import nearest
from forebay.errors import NotAttached
from forebay.meta import Catalog, Dataset
from forebay.ufs import StorageFactory, UnderStorage, open_storage


class Attached:
    """One dataset in use. Threads: any."""

    def __init__(self, record: Dataset, schemes: Mapping[str, StorageFactory]) -> None:
        """Take the record; nothing is opened yet."""
        self.record: Final = record
        self._schemes: Final = schemes
        self._lock: Final = threading.Lock()
        self._storage: UnderStorage | None = None
        self._throttled_told = 0

    @property
    def storage(self) -> UnderStorage:
        """The under storage, made at the first use: whoever only hits never makes one."""
        storage = self._storage
        if storage is None:
            with self._lock:
                if self._storage is None:
                    self._storage = open_storage(self.record.uri, self.record.options, self._schemes)
                storage = self._storage
        return storage

    def newly_throttled(self) -> int:
        """Return how many requests the under storage has refused for load since this was asked last."""
        throttled = self.storage.counts().get("throttled", 0)
        with self._lock:
            new = max(throttled - self._throttled_told, 0)
            self._throttled_told += new
        return new

    def close(self) -> None:
        """Close the under storage if there is one."""
        with self._lock:
            storage, self._storage = self._storage, None
        if storage is not None:
            storage.close()


class Datasets:
    """All attached datasets, following the catalog as other processes change it.

    For one process. Threads: any.
    """

    def __init__(
        self,
        catalog: Catalog,
        schemes: Mapping[str, StorageFactory],
        on_new: Callable[[Dataset], None],
    ) -> None:
        """Follow the catalog; on_new is called once for each record as it is first seen or has changed."""
        self._catalog: Final = catalog
        self._schemes: Final = schemes
        self._on_new: Final = on_new
        self._lock: Final = threading.Lock()
        self._records: Mapping[str, Dataset] = {}
        self._attached: dict[str, Attached] = {}

    def find(self, name: str) -> Attached:
        """Return the dataset of that name. Raises: NotAttached (with the nearest name there is)."""
        records = self._catalog.datasets()
        if records is not self._records:
            self._follow(records)
        attached = self._attached.get(name)
        if attached is None:
            raise NotAttached(
                f"no dataset {name!r} is attached{nearest(name, records)}; see `forebay datasets`"
            )
        return attached

    def records(self) -> list[Dataset]:
        """Return the records of all datasets, by name."""
        return [record for _, record in sorted(self._catalog.datasets().items())]

    def close(self) -> None:
        """Close every under storage that was opened."""
        with self._lock:
            attached, self._attached, self._records = self._attached, {}, {}
        for each in attached.values():
            each.close()

    def _follow(self, records: Mapping[str, Dataset]) -> None:
        with self._lock:
            before = self._attached
            now: dict[str, Attached] = {}
            for name, record in records.items():
                known = before.get(name)
                if known is None or known.record != record:
                    self._on_new(record)
                    known = Attached(record, self._schemes)
                now[name] = known
            self._attached, self._records = now, records
        # Storages that fell out are left to their last readers.
