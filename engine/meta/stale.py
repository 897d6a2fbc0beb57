"""Stale versions: objects' versions that are no more, and whose cached blocks somebody has to reclaim.

A row is added by the very transaction that notes the new version or the removal, and taken away when the
blocks are reclaimed, or when the object has that version again.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Final, NamedTuple

from forebay.meta.ledger import Ledger
from forebay.meta.rows import STALE, SUM_BYTES, dataset_prefix, is_sound, sealed

_ID: Final = struct.Struct(">I")
_ID_AT: Final = len(STALE)
_ROW: Final = struct.Struct("<QH")
_DIGEST_BYTES: Final = 16


class StaleObject(NamedTuple):
    """A version of an object that the under storage no longer has."""

    dataset_id: int
    path: str
    version: str
    size: int


def add(transaction: Any, ledger: Ledger, stale: StaleObject) -> None:
    """Note a stale version."""
    key = _key(stale.dataset_id, stale.path, stale.version)
    version = stale.version.encode("utf-8", "surrogateescape")
    path = stale.path.encode("utf-8", "surrogateescape")
    row = sealed(key, _ROW.pack(stale.size, len(version)) + version + path)
    if transaction.put(key, row, overwrite=False):
        ledger.stale_count += 1


def remove(transaction: Any, ledger: Ledger, dataset_id: int, path: str, version: str) -> None:
    """Take a version off: it was reclaimed, or is current again."""
    if ledger.stale_count and transaction.delete(_key(dataset_id, path, version)):
        ledger.stale_count = max(0, ledger.stale_count - 1)


def read(transaction: Any, limit: int) -> tuple[list[StaleObject], list[bytes]]:
    """Return up to limit stale versions, and the keys of damaged rows among them."""
    found: list[StaleObject] = []
    damaged: list[bytes] = []
    cursor = transaction.cursor()
    for key, value in cursor if cursor.set_range(STALE) else ():
        if not key.startswith(STALE) or len(found) >= limit:
            break
        stale = _unpack(key, value)
        if stale is None:
            damaged.append(key)
        else:
            found.append(stale)
    return found, damaged


def _unpack(key: bytes, value: bytes) -> StaleObject | None:
    if len(value) < _ROW.size + SUM_BYTES or not is_sound(key, value):
        return None
    size, version_bytes = _ROW.unpack_from(value)
    end = _ROW.size + version_bytes
    version = value[_ROW.size : end].decode("utf-8", "surrogateescape")
    path = value[end:-SUM_BYTES].decode("utf-8", "surrogateescape")
    return StaleObject(_ID.unpack_from(key, _ID_AT)[0], path, version, size)


def _key(dataset_id: int, path: str, version: str) -> bytes:
    text = f"{path}\0{version}".encode("utf-8", "surrogateescape")
    return dataset_prefix(STALE, dataset_id) + hashlib.blake2b(text, digest_size=_DIGEST_BYTES).digest()
