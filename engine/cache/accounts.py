"""Accounts: what a dataset has asked of its under storage, and what the cache has spared it.

Made from the store's counters, which are of all processes and outlive them. Without a cache a reader
is taken to ask for each block that it looks up by a request of its own, and for the bytes that tiers and
peers gave it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from forebay.cache.prices import Prices
from forebay.meta import Dataset

_KINDS: Final = ("gets", "heads", "lists", "puts", "deletes")
_MEDIA: Final = ("mem", "ssd", "hdd")


@dataclass(frozen=True, slots=True)
class Account:
    """What was counted for one dataset since the cache was made, or since its index was lost.

    requests: sent to the under storage, repeated ones too, by what they ask for. class_a and class_b: as
    stores price them. bytes: what readers and loads had, by where from. written_bytes: of objects put and
    acknowledged. misses: by cause, each look-up once. saved_requests and saved_bytes are below 0 where more
    was fetched than was read. cost and saved_cost are in currency, None where the price file says nothing of
    the dataset.
    """

    requests: Mapping[str, int]
    class_a: int
    class_b: int
    bytes: Mapping[str, int]
    written_bytes: int
    hits: int
    misses: Mapping[str, int]
    saved_requests: int
    saved_bytes: int
    currency: str
    cost: float | None
    saved_cost: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the account as plain data."""
        return asdict(self)


def accounts_of(
    records: Iterable[Dataset], figures: Mapping[int, Mapping[str, Any]], prices: Prices
) -> dict[str, Account]:
    """Return the accounts of datasets by name; figures are the store's, by the dataset's number.

    Those that have none of their own, or of which nothing was counted yet, are left out.
    """
    return {
        record.name: _account(figures[record.id]["counters"], record.uri, prices)
        for record in records
        if record.id in figures and figures[record.id]["counters"]
    }


def _account(counters: Mapping[str, int], uri: str, prices: Prices) -> Account:
    requests = {kind: counters[f"source_{kind}"] for kind in _KINDS}
    class_a, class_b = requests["lists"] + requests["puts"], requests["gets"] + requests["heads"]
    served = {medium.upper(): counters[f"hit_bytes_{medium}"] for medium in _MEDIA}
    hits = sum(counters[f"hits_{medium}"] for medium in _MEDIA)
    misses = {
        name.removeprefix("misses_"): count for name, count in counters.items() if name.startswith("misses_")
    }
    saved_requests = hits + sum(misses.values()) - requests["gets"]
    # Loads and readahead count what peers gave them as well.
    spared = sum(served.values()) + counters["peer_bytes"]
    saved_bytes = spared - counters["load_bytes"] - counters["readahead_bytes"]
    price = prices.of(uri)
    source_bytes = counters["source_bytes"]
    return Account(
        requests=requests,
        class_a=class_a,
        class_b=class_b,
        bytes={**served, "peers": counters["peer_bytes"], "source": source_bytes},
        written_bytes=counters["write_bytes"],
        hits=hits,
        misses=misses,
        saved_requests=saved_requests,
        saved_bytes=saved_bytes,
        currency=prices.currency,
        cost=None if price is None else price.of(class_a, class_b, requests["deletes"], source_bytes),
        saved_cost=None if price is None else price.of(0, saved_requests, 0, saved_bytes),
    )
