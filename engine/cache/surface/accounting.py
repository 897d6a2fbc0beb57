"""Accounting: what each dataset has cost, and what the cache has spared it."""

from __future__ import annotations

from forebay.cache.accounts import Account, accounts_of
from forebay.cache.prices import Prices, load_prices, prices_beside
from forebay.cache.surface.base import CacheBase


class Accounting(CacheBase):
    """The verbs for accounts."""

    def accounts(self) -> dict[str, Account]:
        """Return by name what was asked, served, missed and saved for each dataset, by all processes.

        Datasets without an account of their own (beyond the first 63) are left out. The price file is read
        anew each time. Raises: ConfigError (the price file; says where).
        """
        records = self._runtime().datasets.records()
        return accounts_of(records, self._store.status()["datasets"], self._read_prices())

    def _read_prices(self) -> Prices:
        if self._prices is None:
            return load_prices(prices_beside(self._path), must_exist=False)
        return load_prices(self._prices, must_exist=True)
