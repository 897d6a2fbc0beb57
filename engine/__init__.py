"""A local cache for training data that many processes share without a daemon.

``forebay.open`` gives the cache over under storages, ``forebay.BlockStore`` the bare store below it. This
module is the list of public names and nothing else. A name is looked up in its layer at its first use, so
that ``import forebay`` costs little and needs no optional package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from forebay import errors

if TYPE_CHECKING:
    from forebay.cache import Cache
    from forebay.config import Tier
    from forebay.opening import open
    from forebay.store import BlockStore, View

__version__ = "0.1.0"

__all__ = ["BlockStore", "Cache", "Tier", "View", "__version__", "errors", "open"]

_HOMES: Final = {
    "BlockStore": "forebay.store",
    "Cache": "forebay.cache",
    "Tier": "forebay.config",
    "View": "forebay.store",
    "open": "forebay.opening",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home module, once.

    Threads: any; two that come at once store the same object.
    Raises: AttributeError (no such public name).
    """
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, those not yet imported included."""
    return list(__all__)
