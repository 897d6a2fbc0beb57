"""Entries: what is known of the objects in the attached datasets.

A cache itself: dropped at boot, and never a loss.

One row for each object or directory, under its dataset, its parent and its name, so that a stat is one get
and a directory's content one range of keys; a further row says that a directory was listed as a whole.
Every row carries the boot time at which the under storage said so. Writes that fail (a full disk) are noted
and otherwise ignored: what is not known is asked again.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import lmdb

from forebay.errors import StoreBusy
from forebay.meta.environment import Environment

_log = logging.getLogger(__name__)

_ID: Final = struct.Struct(">I")
_ROW: Final = struct.Struct(
    "<QqQHH"
)  # size, mtime_ns, checked_ns, bytes of version, bytes of name if kept whole
_TIME: Final = struct.Struct("<Q")
_PARENT_HASH_BYTES: Final = 12
_PREFIX_BYTES: Final = _ID.size + _PARENT_HASH_BYTES

# What follows the parent in a key. An object and a directory may have the same name in an object store.
_OBJECT: Final = b"\0"
_DIRECTORY: Final = b"\1"
_LISTED: Final = b"\2"

# LMDB's keys end at 511 bytes.
_NAME_BYTES_MAX: Final = 400
_NAME_BYTES_KEPT: Final = 384
_NAME_HASH_BYTES: Final = 16
_BATCH: Final = 10_000

# Reads go on without what is not written, so they wait little for it, and less when the last wait was in
# vain.
_PATIENCE_S: Final = 1.0
_PATIENCE_AFTER_FAILURE_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Entry:
    """One object or directory as the under storage described it at checked_ns, in boot time."""

    path: str
    size: int
    mtime_ns: int
    version: str
    is_dir: bool
    checked_ns: int


class Entries:
    """The entries of all datasets of one cache directory.

    Threads: any; other processes may write as well.
    """

    def __init__(self, environment: Environment, *, read_only: bool = False) -> None:
        """Use an environment that the caller keeps open, and closes; read_only makes writing a no-op."""
        self._environment: Final = environment
        self._read_only: Final = read_only
        self._write_failed = False

    def get(self, dataset_id: int, path: str, *, directories: bool = False) -> Entry | None:
        """Return what is known of the object, or else, if asked for, of the directory of that name."""
        prefix, name = _locate(dataset_id, path)
        with self._environment.reading() as transaction:
            value = transaction.get(prefix + _OBJECT + name)
            if value is not None:
                return _unpack(path, value, is_dir=False)
            value = transaction.get(prefix + _DIRECTORY + name) if directories else None
        return None if value is None else _unpack(path, value, is_dir=True)

    def put(self, dataset_id: int, entries: Iterable[Entry]) -> bool:
        """Remember entries; what was known of the same objects gives way unless it is newer.

        False: not written.
        """

        def write(transaction: Any) -> None:
            for entry in entries:
                prefix, name = _locate(dataset_id, entry.path)
                key = prefix + (_DIRECTORY if entry.is_dir else _OBJECT) + name
                known = transaction.get(key)
                if known is None or _checked_ns(known) <= entry.checked_ns:
                    transaction.put(key, _pack(entry))

        return self._write(write)

    def forget(self, dataset_id: int, path: str) -> None:
        """Remove what is known of the object or directory."""
        prefix, name = _locate(dataset_id, path)

        def write(transaction: Any) -> None:
            for kind in (_OBJECT, _DIRECTORY):
                transaction.delete(prefix + kind + name)

        self._write(write)

    def listed_ns(self, dataset_id: int, directory: str) -> int | None:
        """Return when the last complete listing of the directory began, None if there was none."""
        with self._environment.reading() as transaction:
            value = transaction.get(_prefix(dataset_id, directory) + _LISTED)
        return None if value is None else int(_TIME.unpack(value)[0])

    def children(self, dataset_id: int, directory: str) -> list[Entry]:
        """Return what is known in the directory, complete only if a listing was completed."""
        return [_child(directory, key, value) for key, value in self._rows(dataset_id, directory)]

    def finish_listing(self, dataset_id: int, directory: str, started_ns: int) -> None:
        """Note that the directory was listed as a whole: what the listing did not show is gone.

        The caller has put everything that was listed, and all was written, with started_ns or later as its
        time.
        """
        gone = [key for key, value in self._rows(dataset_id, directory) if _checked_ns(value) < started_ns]
        for start in range(0, len(gone), _BATCH):
            self._delete_older(gone[start : start + _BATCH], started_ns)
        key = _prefix(dataset_id, directory) + _LISTED

        def write(transaction: Any) -> None:
            known = transaction.get(key)
            if known is None or _TIME.unpack(known)[0] < started_ns:
                transaction.put(key, _TIME.pack(started_ns))

        self._write(write)

    def drop_dataset(self, dataset_id: int) -> None:
        """Remove everything of a dataset, in batches, so that other writers are not kept waiting."""
        first, behind = _ID.pack(dataset_id), _ID.pack(dataset_id + 1)
        left = True

        def write(transaction: Any) -> None:
            nonlocal left
            cursor = transaction.cursor()
            for _ in range(_BATCH):
                left = cursor.set_range(first) and cursor.key() < behind
                if not left:
                    return
                cursor.delete()

        while left and self._write(write):
            pass

    def _rows(self, dataset_id: int, directory: str) -> Iterator[tuple[bytes, bytes]]:
        prefix = _prefix(dataset_id, directory)
        with self._environment.reading() as transaction:
            cursor = transaction.cursor()
            for key, value in cursor if cursor.set_range(prefix) else ():
                if not key.startswith(prefix) or key[_PREFIX_BYTES:] == _LISTED:
                    return
                yield key, value

    def _delete_older(self, keys: list[bytes], started_ns: int) -> None:
        def write(transaction: Any) -> None:
            for key in keys:
                value = transaction.get(key)
                if value is not None and _checked_ns(value) < started_ns:
                    transaction.delete(key)

        self._write(write)

    def _write(self, action: Callable[[Any], None]) -> bool:
        """Run one write transaction; False if it could not be written."""
        if self._read_only:
            return False
        patience_s = _PATIENCE_AFTER_FAILURE_S if self._write_failed else _PATIENCE_S
        try:
            with self._environment.writing(patience_s) as transaction:
                action(transaction)
        except (lmdb.Error, StoreBusy) as error:
            if not self._write_failed:
                _log.warning("metadata is not kept, reads go on without: %s", error)
            self._write_failed = True
            return False
        self._write_failed = False
        return True


@functools.lru_cache(maxsize=4_096)
def _prefix(dataset_id: int, directory: str) -> bytes:
    digest = hashlib.blake2b(directory.encode("utf-8", "surrogateescape"), digest_size=_PARENT_HASH_BYTES)
    return _ID.pack(dataset_id) + digest.digest()


def _locate(dataset_id: int, path: str) -> tuple[bytes, bytes]:
    """Return both ends of a path's key: its parent's prefix, and its name, shortened if too long."""
    directory, _, name = path.rpartition("/")
    encoded = name.encode("utf-8", "surrogateescape")
    if len(encoded) > _NAME_BYTES_MAX:
        digest = hashlib.blake2b(encoded, digest_size=_NAME_HASH_BYTES).digest()
        encoded = encoded[:_NAME_BYTES_KEPT] + digest
    return _prefix(dataset_id, directory), encoded


def _pack(entry: Entry) -> bytes:
    version = entry.version.encode("utf-8", "surrogateescape")
    name = entry.path.rpartition("/")[2].encode("utf-8", "surrogateescape")
    whole_name = name if len(name) > _NAME_BYTES_MAX else b""
    head = _ROW.pack(entry.size, entry.mtime_ns, entry.checked_ns, len(version), len(whole_name))
    return head + version + whole_name


def _unpack(path: str, value: bytes, *, is_dir: bool) -> Entry:
    size, mtime_ns, checked_ns, version_bytes, _ = _ROW.unpack_from(value)
    version = value[_ROW.size : _ROW.size + version_bytes].decode("utf-8", "surrogateescape")
    return Entry(path, size, mtime_ns, version, is_dir, checked_ns)


def _child(directory: str, key: bytes, value: bytes) -> Entry:
    whole_name_bytes = _ROW.unpack_from(value)[4]
    raw_name = value[-whole_name_bytes:] if whole_name_bytes else key[_PREFIX_BYTES + 1 :]
    name = raw_name.decode("utf-8", "surrogateescape")
    is_dir = key[_PREFIX_BYTES : _PREFIX_BYTES + 1] == _DIRECTORY
    return _unpack(f"{directory}/{name}" if directory else name, value, is_dir=is_dir)


def _checked_ns(value: bytes) -> int:
    return int(_ROW.unpack_from(value)[2])
