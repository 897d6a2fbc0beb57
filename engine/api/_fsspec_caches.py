"""The options of ``forebay://``, and the caches that they open: one of a process for the same options."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, Final
from weakref import WeakValueDictionary

from fsspec.utils import tokenize

from forebay.cache import Cache
from forebay.config import Tier, nearest
from forebay.opening import open as open_directory
from forebay.opening import option_names

# What fsspec's own constructors take, and the parts of a chained URL.
_OF_FSSPEC: Final = (
    "add_aliases",
    "add_docs",
    "asynchronous",
    "batch_size",
    "fo",
    "listings_expiry_time",
    "loop",
    "max_paths",
    "skip_instance_cache",
    "target_options",
    "target_protocol",
    "use_listings_cache",
)

_PATHS: Final = ("cache_dir", "config_file", "prices", "staging_dir")


def checked_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of ``forebay.open`` without fsspec's, in a form that means the same in any process.

    Paths are made absolute, and tiers become tables. Raises: TypeError (no such option; names the nearest,
    and never a value).
    """
    names = option_names()
    for name in given:
        if name not in names and name not in _OF_FSSPEC:
            raise TypeError(
                f"forebay://: unknown option {name!r}{nearest(name, [*names, *_OF_FSSPEC])}; options are "
                f"{', '.join(names)}, and fsspec's own ({', '.join(_OF_FSSPEC)})"
            )
    checked = {name: value for name, value in given.items() if name in names and value is not None}
    for name in _PATHS:
        if name in checked:
            checked[name] = os.path.abspath(os.path.expanduser(checked[name]))
    if "tiers" in checked and not isinstance(checked["tiers"], str):
        checked["tiers"] = [asdict(each) if isinstance(each, Tier) else each for each in checked["tiers"]]
    return checked


class _Caches:
    """The open caches of this process by their options, each for as long as somebody uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Final[WeakValueDictionary[str, Cache]] = WeakValueDictionary()

    def after_fork(self) -> None:
        # A thread of the parent may have held the lock; the caches themselves survive a fork.
        self._lock = threading.Lock()

    def get(self, options: Mapping[str, Any]) -> Cache:
        key = tokenize(sorted(options.items()))
        with self._lock:
            cache = self._open.get(key)
            if cache is None or cache.closed:
                cache = self._open[key] = _open_cache(dict(options))
            return cache


_caches: Final = _Caches()
os.register_at_fork(after_in_child=_caches.after_fork)


def cache_of(options: Mapping[str, Any]) -> Cache:
    """Return the cache that checked options stand for, opening it if it is not open. Threads: any.

    Raises: as ``forebay.open``.
    """
    return _caches.get(options)


def _open_cache(options: dict[str, Any]) -> Cache:
    tiers = options.pop("tiers", None)
    return open_directory(options.pop("cache_dir", None), None if tiers is None else _tiers(tiers), **options)


def _tiers(given: str | Iterable[Mapping[str, Any] | str]) -> list[Tier]:
    """Return tiers, given as tables or as text: PATH:QUOTA[:MEDIUM], with commas between them."""
    each = given.split(",") if isinstance(given, str) else given
    return [Tier.parse(one.strip()) if isinstance(one, str) else Tier(**one) for one in each]
