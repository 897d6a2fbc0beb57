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
_PLACES: Final = 65_536
_PLACE: Final = struct.Struct(">I")
_NAME_BYTES: Final = 16
# The dataset's id, the path's other hash, when it was asked.
_ROW: Final = struct.Struct(f"<I{_NAME_BYTES}sQ")
_ROW_BYTES: Final = _ROW.size + SUM_BYTES


def note(transaction: Any, ledger: Ledger, dataset_id: int, path: str, asked_ns: int) -> None:
    """Note that there was no such object at asked_ns; a later note stays."""
    key, name = _locate(dataset_id, path)
    known_ns = _read(transaction, key, name)
    if known_ns is not None and known_ns >= asked_ns:
        return
    if transaction.get(key) is None:
        ledger.absent_count += 1
    transaction.put(key, sealed(key, _ROW.pack(dataset_id, name, asked_ns)))


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


def clear_all(transaction: Any, ledger: Ledger, dataset_id: int) -> bool:
    """Forget all that is remembered here of a dataset; say whether it was anything."""
    if not ledger.absent_count:
        return False
    found: list[bytes] = []
    cursor = transaction.cursor()
    for key, value in cursor if cursor.set_range(ABSENT) else ():
        if not key.startswith(ABSENT):
            break
        row = _unpack(key, value)
        if row is not None and row[0] == dataset_id:
            found.append(key)
    for key in found:
        transaction.delete(key)
    ledger.absent_count = max(0, ledger.absent_count - len(found))
    return bool(found)


def _read(transaction: Any, key: bytes, name: bytes) -> int | None:
    value = transaction.get(key)
    row = None if value is None else _unpack(key, value)
    return row[2] if row is not None and row[1] == name else None


def _unpack(key: bytes, value: bytes) -> tuple[int, bytes, int] | None:
    """Return dataset, name and time of a row; None if it is damaged."""
    if len(value) != _ROW_BYTES or not is_sound(key, value):
        return None
    dataset_id, name, asked_ns = _ROW.unpack_from(value)
    return dataset_id, name, asked_ns


def _locate(dataset_id: int, path: str) -> tuple[bytes, bytes]:
    text = _ID.pack(dataset_id) + path.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(text, digest_size=_PLACE.size + _NAME_BYTES).digest()
    place = _PLACE.unpack_from(digest)[0] % _PLACES
    return ABSENT + _PLACE.pack(place), digest[_PLACE.size :]
