"""Prices: what an under storage charges, from a TOML file that is its owner's to write and to keep.

A price is for all datasets at or below a URI; of several the longest counts. Nothing is charged that the file
says nothing of, and without a file there is no money anywhere.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from forebay.config import nearest
from forebay.errors import ConfigError

PRICES_FILE: Final = "prices.toml"
_KEYS: Final = ("currency", "prices")
_REQUESTS_PRICED: Final = 1_000
_BYTES_PRICED: Final = 10**9


@dataclass(frozen=True, slots=True)
class Price:
    """What one place charges.

    class_a (lists and all that writes), class_b (gets, heads) and delete are for 1,000 requests, out_gb is
    for 10**9 bytes read.
    """

    class_a: float = 0.0
    class_b: float = 0.0
    delete: float = 0.0
    out_gb: float = 0.0

    def of(self, class_a: int, class_b: int, deletes: int, out_bytes: int) -> float:
        """Return what so many requests and bytes cost."""
        requests = class_a * self.class_a + class_b * self.class_b + deletes * self.delete
        return requests / _REQUESTS_PRICED + out_bytes * self.out_gb / _BYTES_PRICED


@dataclass(frozen=True, slots=True)
class Prices:
    """A currency, and prices by URI."""

    currency: str = ""
    by_uri: Mapping[str, Price] = field(default_factory=dict)

    def of(self, uri: str) -> Price | None:
        """Return the price for a dataset of that URI, None if none is said."""
        found = [place for place in self.by_uri if _is_within(uri, place)]
        return self.by_uri[max(found, key=len)] if found else None


def load_prices(path: str, *, must_exist: bool) -> Prices:
    """Read a price file; where there may be none and is none, there are no prices.

    Raises: ConfigError (unreadable, no TOML, an unknown key, no price; says where).
    """
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except FileNotFoundError as error:
        if not must_exist:
            return Prices()
        raise _unreadable(path, error) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    _refuse_unknown(path, table, _KEYS)
    currency, prices = table.get("currency", ""), table.get("prices", {})
    if not isinstance(currency, str) or not currency.isprintable():
        raise ConfigError(f"{path}: currency: expected text such as 'USD'")
    if not isinstance(prices, Mapping):
        raise ConfigError(f'{path}: prices: expected tables, written as [prices."s3://bucket"]')
    return Prices(currency, {uri: _price(f"{path}: prices: {uri}", said) for uri, said in prices.items()})


def prices_beside(folder: str) -> str:
    """Return where the price file of a cache directory lies unless another is named."""
    return os.path.join(folder, PRICES_FILE)


def _price(where: str, said: Any) -> Price:
    if not isinstance(said, Mapping):
        raise ConfigError(f"{where}: expected a table with a URI in quotes as its name")
    _refuse_unknown(where, said, [each.name for each in fields(Price)])
    for key, value in said.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not 0 <= value < math.inf:
            raise ConfigError(f"{where}: {key}: expected a price, 0 or more")
    return Price(**{key: float(value) for key, value in said.items()})


def _refuse_unknown(where: str, table: Mapping[str, Any], known: tuple[str, ...] | list[str]) -> None:
    for key in table:
        if key not in known:
            raise ConfigError(
                f"{where}: unknown key {key!r}{nearest(key, known)}; keys are {', '.join(known)}"
            )


def _unreadable(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: cannot be read: {error.strerror}")


def _is_within(uri: str, place: str) -> bool:
    return uri == place or uri.startswith(place if place.endswith("/") else f"{place}/")
