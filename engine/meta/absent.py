"""Absent paths: that the under storage said "there is no such object", and when it was asked.

A table of a fixed number of places, found by a hash of the path; a path drives out the one that had its
place. So it never grows, whatever paths are tried.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Final

from forebay.meta.ledger import Ledger
from forebay.meta.rows import ABSENT, SUM_BYTES, is_sound, sealed

_ID: Final = struct.Struct(">I")
_TIME: Final = struct.Struct("<Q")
_PLACES: Final = 65_536
_PLACE: Final = struct.Struct(">I")
_NAME_BYTES: Final = 16
_ROW_BYTES: Final = _NAME_BYTES + _TIME.size + SUM_BYTES


def note(transaction: Any, ledger: Ledger, dataset_id: int, path: str, asked_ns: int) -> None:
    """Note that there was no such object at asked_ns; a later note stays."""
    key, name = _locate(dataset_id, path)
    known_ns = _read(transaction, key, name)
    if known_ns is not None and known_ns >= asked_ns:
        return
    if transaction.get(key) is None:
        ledger.absent_count += 1
    transaction.put(key, sealed(key, name + _TIME.pack(asked_ns)))


def asked_ns(transaction: Any, dataset_id: int, path: str) -> int | None:
    """Return when it was asked for last and not there; None if it is not remembered."""
    return _read(transaction, *_locate(dataset_id, path))


def clear(transaction: Any, ledger: Ledger, dataset_id: int, path: str) -> bool:
    """Forget that there was no such object; say whether that was remembered."""
    if not ledger.absent_count:
        return False
    key, name = _locate(dataset_id, path)
    if _read(transaction, key, name) is None:
        return False
    transaction.delete(key)
    ledger.absent_count = max(0, ledger.absent_count - 1)
    return True


def _read(transaction: Any, key: bytes, name: bytes) -> int | None:
    value = transaction.get(key)
    if value is None or len(value) != _ROW_BYTES or not is_sound(key, value) or not value.startswith(name):
        return None
    return int(_TIME.unpack_from(value, _NAME_BYTES)[0])


def _locate(dataset_id: int, path: str) -> tuple[bytes, bytes]:
    text = _ID.pack(dataset_id) + path.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(text, digest_size=_PLACE.size + _NAME_BYTES).digest()
    place = _PLACE.unpack_from(digest)[0] % _PLACES
    return ABSENT + _PLACE.pack(place), digest[_PLACE.size :]
