"""The cache as a user holds it; its verbs are in surface/."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay.cache.accounts import accounts_of
from forebay.cache.surface.accounting import Accounting
from forebay.cache.surface.answering import Answering
from forebay.cache.surface.manifests import Manifesting
from forebay.cache.surface.prefetching import Prefetching
from forebay.cache.surface.scheduling import Scheduling
from forebay.cache.surface.trees import Trees
from forebay.cache.surface.writes import Writing

if TYPE_CHECKING:
    from forebay.store import CheckReport


class Cache(Accounting, Answering, Trees, Prefetching, Manifesting, Scheduling, Writing):
    """A host's cache of attached datasets, shared by every process that opens the same directory.

    A context manager; it pickles as its configuration, survives fork, and may be used by any thread. Paths
    are ``dataset/rest/of/path``. Every method raises NotAttached (no such dataset), ValueError (a malformed
    path), Closed; those that ask the under storage raise NotFound only when it says so itself,
    PermissionError, TimeoutError and, for all else, UnderStorageError. No read fails because the cache is
    full.
    """

    def status(self) -> dict[str, Any]:
        """Return the status of the store, host-wide, the attached datasets and their accounts; fit for JSON.

        What stands under "fetch" and "recent" is of this process. Raises: ConfigError (the price file).
        """
        runtime = self._runtime()
        records, status = runtime.datasets.records(), self._store.status()
        names = {record.id: record.name for record in records}
        for number, dataset in status["datasets"].items():
            dataset["name"] = names.get(number, "")
        accounts = accounts_of(records, status["datasets"], self._read_prices())
        for record in records:
            dataset = status["datasets"].get(record.id)
            if dataset is not None:
                # The store is told of it only once the dataset is used.
                dataset["quota_bytes"] = record.quota_bytes
                if account := accounts.get(record.name):
                    dataset |= {"cost": account.cost, "saved_cost": account.saved_cost}
        return {
            "path": self._path,
            **status,
            "accounts": {name: account.to_json() for name, account in accounts.items()},
            "attached": [record.to_json() for record in records],
            "fetch": runtime.pool.status(),
            "staging": runtime.staging.status(),
            "recent": {
                "entries": len(self._recent),
                "bytes": self._recent.bytes_used,
                "bytes_max": self._recent.bytes_max,
            },
        }

    def check(self, repair: bool = False) -> CheckReport:
        """Verify the store's structure and every cached byte; repair drops what is wrong. May take long."""
        # A damaged catalog is an error here as well, and says how to restore it.
        self._runtime().metadata.catalog.datasets()
        return self._store.check(repair)
