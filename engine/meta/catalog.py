"""The catalog: which datasets are attached, and small records of others, such as loads.

On disk at each commit. Damage is an error that names the file, never a silent new beginning: a copy of the
file lies beside it (backup.py), and docs/operations.md says how to put it in place. Ids of datasets are given
once and never again, so that what is left over of a detached one belongs to nobody.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, get_args

import lmdb

from forebay.errors import ConfigError, NotAttached
from forebay.meta.backup import BACKUP_SUFFIX, write_backup
from forebay.meta.environment import Environment

Kind = Literal["job", "policy", "manifest"]

_T = TypeVar("_T")

_KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_ROW_ID_BYTES: Final = 8
# LMDB's keys end at 511 bytes; no kind and its slash has more than 11.
_ROW_ID_CHARACTERS_MAX: Final = 500
_PREFIX: Final = b"dataset/"
_NEXT_ID: Final = b"next-id"
_FIRST_ID: Final = 1
_ID_MAX: Final = (1 << 32) - 2


@dataclass(frozen=True)
class Dataset:
    """A named attachment of an under-storage URI.

    id is 0 until it is attached; max_age is None (immutable), 0 (always checked) or seconds; negative_ttl
    is for how many seconds an absent path is remembered; options are the under storage's, none of them
    secret.
    """

    name: str
    uri: str
    id: int = 0
    max_age: float | None = 60.0
    negative_ttl: float = 0.0
    retention: str = "epoch"
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {**asdict(self), "options": dict(self.options)}


class Catalog:
    """The datasets of one cache directory, for this process; and rows of other kinds, each a JSON object.

    Threads: any; other processes may write as well. Everything raises ConfigError where the file is damaged
    (names it and the cure), StoreBusy where another process does not finish writing.
    """

    def __init__(self, environment: Environment, path: str | os.PathLike[str]) -> None:
        """Use the environment of that file, which the caller keeps open, and closes."""
        self._environment: Final = environment
        self._path: Final = os.fspath(path)
        self._lock: Final = threading.Lock()
        self._read_at = -1
        self._datasets: Mapping[str, Dataset] = MappingProxyType({})

    def datasets(self) -> Mapping[str, Dataset]:
        """Return all datasets by name; the same object as before while nothing has changed."""
        commit = self._environment.last_commit()
        if commit == self._read_at:
            return self._datasets
        with self._lock:
            # Read after the number: a commit in between only makes the next call read again.
            found = {dataset.name: dataset for dataset in self._rows(_PREFIX, self._parse).values()}
            # Rows of other kinds change as well; who follows the datasets need not look at all of them then.
            if found != self._datasets:
                self._datasets = MappingProxyType(found)
            self._read_at = commit
            return self._datasets

    def attach(self, dataset: Dataset) -> Dataset:
        """Store the dataset and return it with its id; the same name and URI again changes the settings.

        Raises: ConfigError (the name stands for another URI; all ids are used up).
        """
        key = _PREFIX + dataset.name.encode()
        with self._writing() as transaction:
            stored = transaction.get(key)
            if stored is not None:
                known = self._parse(key, stored)
                if known.uri != dataset.uri:
                    raise ConfigError(
                        f"dataset {dataset.name!r} is attached to {known.uri}; "
                        "detach it first, or take another name"
                    )
                attached = replace(dataset, id=known.id)
            else:
                attached = replace(dataset, id=self._new_dataset_id(transaction))
            transaction.put(key, _to_json(attached.to_json()))
        write_backup(self._environment, self._path)
        return attached

    def detach(self, name: str) -> Dataset:
        """Remove the dataset and return what it was. Raises: NotAttached."""
        key = _PREFIX + name.encode()
        with self._writing() as transaction:
            stored = transaction.get(key)
            if stored is None:
                raise NotAttached(f"no dataset {name!r} is attached")
            detached = self._parse(key, stored)
            transaction.delete(key)
        write_backup(self._environment, self._path)
        return detached

    def new_id(self, kind: Kind) -> str:
        """Return an id for a row that no other row of its kind has or had: random, so nothing is stored."""
        _row_key(kind, "")
        return secrets.token_hex(_ROW_ID_BYTES)

    def put_row(self, kind: Kind, row_id: str, data: Mapping[str, Any]) -> None:
        """Store a row, in place of an earlier one of that id; on disk when it returns.

        Raises: ValueError (an id of no or too many characters, or data that JSON cannot hold).
        """
        key, value = _row_key(kind, row_id), _to_json(dict(data))
        with self._writing() as transaction:
            transaction.put(key, value)

    def get_row(self, kind: Kind, row_id: str) -> dict[str, Any] | None:
        """Return a row, None if there is none."""
        key = _row_key(kind, row_id)
        with self._reading() as transaction:
            value = transaction.get(key)
        return None if value is None else self._from_json(key, value)

    def rows(self, kind: Kind) -> dict[str, dict[str, Any]]:
        """Return all rows of a kind, by id."""
        prefix = _row_key(kind, "")
        found = self._rows(prefix, self._from_json)
        return {key[len(prefix) :].decode(): data for key, data in found.items()}

    def delete_row(self, kind: Kind, row_id: str) -> bool:
        """Remove a row; say whether there was one."""
        with self._writing() as transaction:
            return bool(transaction.delete(_row_key(kind, row_id)))

    def _rows(self, prefix: bytes, read: Callable[[bytes, bytes], _T]) -> dict[bytes, _T]:
        found: dict[bytes, _T] = {}
        with self._reading() as transaction:
            cursor = transaction.cursor()
            for key, value in cursor if cursor.set_range(prefix) else ():
                if not key.startswith(prefix):
                    break
                found[key] = read(key, value)
        return found

    def _new_dataset_id(self, transaction: Any) -> int:
        stored = transaction.get(_NEXT_ID)
        try:
            new_id = int(stored or _FIRST_ID)
        except ValueError as error:
            raise self._damaged(f"the row {_NEXT_ID!r}: {error}") from error
        if new_id > _ID_MAX:
            raise ConfigError("all ids of datasets are used up; begin a new cache directory")
        transaction.put(_NEXT_ID, str(new_id + 1).encode())
        return new_id

    def _parse(self, key: bytes, value: bytes) -> Dataset:
        data = self._from_json(key, value)
        known = {one.name: data[one.name] for one in fields(Dataset) if one.name in data}
        try:
            return Dataset(**known)
        except TypeError as error:
            raise self._damaged(f"the row {key!r}: {error}") from error

    def _from_json(self, key: bytes, value: bytes) -> dict[str, Any]:
        try:
            data = json.loads(value)
        except ValueError as error:
            raise self._damaged(f"the row {key!r}: {error}") from error
        if not isinstance(data, dict):
            raise self._damaged(f"the row {key!r} is no JSON object")
        return data

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with self._environment.reading() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise self._damaged(str(error)) from error

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        try:
            with self._environment.writing() as transaction:
                yield transaction
        except lmdb.CorruptedError as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, cause: str) -> ConfigError:
        return ConfigError(f"{self._path}: damaged: {cause}; {cure(self._path)}")


def cure(path: str) -> str:
    """Say what to do about a damaged catalog."""
    return (
        f"end all users of the cache and put {path}{BACKUP_SUFFIX} in its place "
        "(docs/operations.md, Restoring the catalog)"
    )


def _row_key(kind: Kind, row_id: str) -> bytes:
    if kind not in _KINDS:
        raise ValueError(f"rows are of the kinds {', '.join(_KINDS)}, not {kind!r}")
    if len(row_id) > _ROW_ID_CHARACTERS_MAX or not row_id.isascii():
        raise ValueError(f"the id of a row has up to {_ROW_ID_CHARACTERS_MAX} ASCII characters: {row_id!r}")
    return f"{kind}/{row_id}".encode("ascii")


def _to_json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, allow_nan=False).encode()
