"""Under storages: where the data lives. One module for each kind, found by the scheme of a URI.

What has no module of its own goes to fsspec, if that knows the scheme.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

from forebay.config import nearest
from forebay.errors import ConfigError
from forebay.ufs.base import PIECE_BYTES, ObjectInfo, RangeBody, RequestKind, UnderStorage

__all__ = [
    "PIECE_BYTES",
    "SCHEMES",
    "ObjectInfo",
    "RangeBody",
    "RequestKind",
    "StorageFactory",
    "UnderStorage",
    "open_storage",
    "scheme_of",
]

StorageFactory = Callable[[str, Mapping[str, Any]], UnderStorage]


def _open_s3(uri: str, options: Mapping[str, Any]) -> UnderStorage:
    storage: UnderStorage = import_module("forebay.ufs.s3").S3Storage(uri, options)
    return storage


def _open_file(uri: str, options: Mapping[str, Any]) -> UnderStorage:
    storage: UnderStorage = import_module("forebay.ufs.file").FileStorage(uri, options)
    return storage


# Scheme -> what makes a storage from a URI and its options. A cache may be given another table.
SCHEMES: Final[Mapping[str, StorageFactory]] = MappingProxyType({"s3": _open_s3, "file": _open_file})


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI, "" if it has none."""
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def open_storage(
    uri: str, options: Mapping[str, Any], schemes: Mapping[str, StorageFactory] = SCHEMES
) -> UnderStorage:
    """Make the storage for a URI, without connecting to it.

    Raises: ConfigError (unknown scheme, unknown or secret option, malformed URI).
    """
    scheme = scheme_of(uri)
    factory = schemes.get(scheme)
    if factory is not None:
        return factory(uri, options)
    if uri.startswith("/"):
        raise ConfigError(f"{uri}: no scheme; a local folder is written file://{uri}")
    by_fsspec = import_module("forebay.ufs.fsspec")
    if by_fsspec.is_known(scheme):
        storage: UnderStorage = by_fsspec.open_fsspec(uri, options)
        return storage
    known = ", ".join(f"{name}://" for name in schemes)
    # Not the whole URI: of a scheme that nobody knows, nobody can say where a password stands in it.
    raise ConfigError(
        f"unknown scheme {scheme!r}{nearest(scheme, schemes)}; known are {known} and those of fsspec"
    )
