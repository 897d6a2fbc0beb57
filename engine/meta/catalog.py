"""The catalog: the attached datasets, their manifests and policies, and records of others, such as loads.

On disk at each commit. Damage is an error that names the file, never a silent new beginning: a copy of the
file lies beside it (backup.py), and docs/operations.md says how to put it in place. Ids of datasets are given
once and never again, so that what is left over of a detached one belongs to nobody.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args

import lmdb

from forebay.errors import ConfigError, NotAttached
from forebay.meta.backup import BACKUP_SUFFIX, write_backup
from forebay.meta.environment import Environment
from forebay.meta.manifest_record import NUMBER_MAX, ManifestRecord, manifest_rows_of
from forebay.meta.rows import path_hash

Kind = Literal["job", "policy", "manifest", "schedule"]

_T = TypeVar("_T")

_KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_ROW_ID_BYTES: Final = 8
# LMDB's keys end at 511 bytes; no kind and its slash has more than 11.
_ROW_ID_CHARACTERS_MAX: Final = 500
_PREFIX: Final = b"dataset/"
_NEXT_ID: Final = b"next-id"
# The upper bits are left to the store's ids, which tell the retentions of one dataset apart.
_ID_MAX: Final = (1 << 28) - 1
_NEXT_MANIFEST: Final = b"next-manifest"
_FIRST_NUMBER: Final = 1


@dataclass(frozen=True)
class Dataset:
    """A named attachment of an under-storage URI.

    id is 0 until it is attached; max_age is None (immutable), 0 (always checked) or seconds; negative_ttl
    is for how many seconds an absent path is remembered; writable says whether the cache may change it, and
    write_mode how; options are the under storage's, none of them secret. manifest is the version that is
    shown, None for all that the under storage has, or nothing with manifest_only; manifest_before is the one
    that was shown before it. quota_bytes is what may be cached of it, None: no limit. local_copy says
    whether a host keeps what its peers answer for ("never", "always" or "if_room"), None: as its role has it.
    """

    name: str
    uri: str
    id: int = 0
    max_age: float | None = 60.0
    negative_ttl: float = 0.0
    retention: str = "epoch"
    writable: bool = False
    write_mode: str = "through"
    options: Mapping[str, Any] = field(default_factory=dict)
    manifest_only: bool = False
    manifest: str | None = None
    manifest_before: str | None = None
    quota_bytes: int | None = None
    local_copy: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {**asdict(self), "options": dict(self.options)}


class Contents(NamedTuple):
    """The datasets by name; by their ids the complete manifests by version, and what policies say by path.

    All of it is of one commit.
    """

    datasets: Mapping[str, Dataset] = MappingProxyType({})
    manifests: Mapping[int, Mapping[str, ManifestRecord]] = MappingProxyType({})
    policies: Mapping[int, Mapping[str, Mapping[str, Any]]] = MappingProxyType({})


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
        self._contents = Contents()

    def datasets(self) -> Mapping[str, Dataset]:
        """Return all datasets by name; the same object as before while nothing has changed."""
        return self.contents().datasets

    def contents(self) -> Contents:
        """Return all that concerns datasets; the same object as before while nothing has changed."""
        commit = self.last_commit()
        if commit == self._read_at:
            return self._contents
        with self._lock:
            # Read after the number: a commit in between only makes the next call read again.
            with self._reading() as transaction:
                datasets, manifests = self._read_datasets(transaction), self._read_manifests(transaction)
                policies = self._read_policies(transaction)
            # Rows of other kinds change as well; who follows the datasets need not look at all of them then.
            if datasets == self._contents.datasets:
                datasets = self._contents.datasets
            found = Contents(datasets, manifests, policies)
            if found != self._contents:
                self._contents = found
            self._read_at = commit
            return self._contents

    def last_commit(self) -> int:
        """Return the number of the last commit by any process; while it stays, nothing has changed."""
        return self._environment.last_commit()

    def attach(self, dataset: Dataset) -> Dataset:
        """Store the dataset and return it with its id; the same name and URI again changes the settings.

        Raises: ConfigError (the name stands for another URI; all ids are used up).
        """
        with self.changing() as change:
            known = change.find_dataset(dataset.name)
            if known is None:
                attached = replace(dataset, id=change.new_dataset_id())
            elif known.uri != dataset.uri:
                raise ConfigError(
                    f"dataset {dataset.name!r} is attached to {known.uri}; "
                    "detach it first, or take another name"
                )
            else:
                attached = replace(
                    dataset,
                    id=known.id,
                    manifest=known.manifest,
                    manifest_before=known.manifest_before,
                )
            change.put_dataset(attached)
        self.back_up()
        return attached

    def set_quota(self, name: str, quota_bytes: int | None) -> Dataset:
        """Store what may be cached of a dataset; return it as it is now. Raises: NotAttached."""
        with self.changing() as change:
            dataset = replace(change.dataset(name), quota_bytes=quota_bytes)
            change.put_dataset(dataset)
        self.back_up()
        return dataset

    def detach(self, name: str) -> Dataset:
        """Remove the dataset with its manifests and policies; return what it was. Raises: NotAttached."""
        with self.changing() as change:
            detached = change.dataset(name)
            change.delete_dataset(detached)
            for manifest in change.manifests(detached.id):
                change.delete_manifest(manifest)
            for path in change.policies(detached.id):
                change.put_policy(detached.id, path, {})
        self.back_up()
        return detached

    def back_up(self) -> None:
        """Copy the catalog to its backup, after a change of datasets or manifests."""
        write_backup(self._environment, self._path)

    @contextmanager
    def changing(self) -> Iterator[CatalogChange]:
        """Make one commit of all changes in the body, or none if it raises; ``back_up`` is to follow.

        It is on disk when the body has ended. Within the body the thread uses nothing else of the catalog.
        """
        with self._writing() as transaction:
            yield CatalogChange(self, transaction)

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
        with self._reading() as transaction:
            return _by_id(prefix, self._rows(transaction, prefix, self._from_json))

    def delete_row(self, kind: Kind, row_id: str) -> bool:
        """Remove a row; say whether there was one."""
        with self._writing() as transaction:
            return bool(transaction.delete(_row_key(kind, row_id)))

    def _read_datasets(self, transaction: Any) -> Mapping[str, Dataset]:
        found = self._rows(transaction, _PREFIX, self._parse).values()
        return MappingProxyType({dataset.name: dataset for dataset in found})

    def _read_manifests(self, transaction: Any) -> Mapping[int, Mapping[str, ManifestRecord]]:
        found: dict[int, dict[str, ManifestRecord]] = {}
        for record in self._rows(transaction, _row_key("manifest", ""), self._parse_manifest).values():
            if not record.is_deleted:
                found.setdefault(record.dataset_id, {})[record.version] = record
        return MappingProxyType(found)

    def _read_policies(self, transaction: Any) -> Mapping[int, Mapping[str, Mapping[str, Any]]]:
        found: dict[int, dict[str, Mapping[str, Any]]] = {}
        for row in self._rows(transaction, _row_key("policy", ""), self._parse_policy).values():
            found.setdefault(row["dataset_id"], {})[row["path"]] = row["policy"]
        return MappingProxyType(found)

    def _parse_policy(self, key: bytes, value: bytes) -> dict[str, Any]:
        row = self._from_json(key, value)
        if row.keys() != {"dataset_id", "path", "policy"}:
            raise self._damaged(f"the row {key!r} is no policy")
        return row

    def _rows(self, transaction: Any, prefix: bytes, read: Callable[[bytes, bytes], _T]) -> dict[bytes, _T]:
        found: dict[bytes, _T] = {}
        cursor = transaction.cursor()
        for key, value in cursor if cursor.set_range(prefix) else ():
            if not key.startswith(prefix):
                break
            found[key] = read(key, value)
        return found

    def _parse(self, key: bytes, value: bytes) -> Dataset:
        data = self._from_json(key, value)
        known = {one.name: data[one.name] for one in fields(Dataset) if one.name in data}
        try:
            return Dataset(**known)
        except TypeError as error:
            raise self._damaged(f"the row {key!r}: {error}") from error

    def _parse_manifest(self, key: bytes, value: bytes) -> ManifestRecord:
        try:
            return ManifestRecord.from_json(self._from_json(key, value))
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
        except lmdb.ReadonlyError as error:
            raise PermissionError(
                "the cache is open to be read only; nothing can be changed in it"
            ) from error
        except lmdb.Error as error:
            raise OSError(errno.EIO, f"cannot be written: {error}", self._path) from error

    def _damaged(self, cause: str) -> ConfigError:
        return ConfigError(f"{self._path}: damaged: {cause}; {cure(self._path)}")


class CatalogChange:
    """One commit in which several rows change together; made by ``Catalog.changing``, for one thread."""

    def __init__(self, catalog: Catalog, transaction: Any) -> None:
        """Write in this transaction of the catalog."""
        self._catalog: Final = catalog
        self._transaction: Final = transaction

    def find_dataset(self, name: str) -> Dataset | None:
        """Return a dataset, None if none of that name is attached."""
        key = _PREFIX + name.encode()
        stored = self._transaction.get(key)
        return None if stored is None else self._catalog._parse(key, stored)

    def dataset(self, name: str) -> Dataset:
        """Return a dataset. Raises: NotAttached."""
        found = self.find_dataset(name)
        if found is None:
            raise NotAttached(f"no dataset {name!r} is attached")
        return found

    def put_dataset(self, dataset: Dataset) -> None:
        """Store a dataset under its name."""
        self._transaction.put(_PREFIX + dataset.name.encode(), _to_json(dataset.to_json()))

    def delete_dataset(self, dataset: Dataset) -> None:
        """Remove a dataset."""
        self._transaction.delete(_PREFIX + dataset.name.encode())

    def new_dataset_id(self) -> int:
        """Return an id that no dataset ever had. Raises: ConfigError (all are used up)."""
        return self._take_number(_NEXT_ID, _ID_MAX, "ids of datasets")

    def new_manifest_number(self) -> int:
        """Return a number that no manifest ever had. Raises: ConfigError (all are used up)."""
        return self._take_number(_NEXT_MANIFEST, NUMBER_MAX, "numbers of manifests")

    def manifests(self, dataset_id: int) -> list[ManifestRecord]:
        """Return the manifests of a dataset, deleted ones that are not gone yet among them."""
        prefix = _row_key("manifest", manifest_rows_of(dataset_id))
        return list(self._catalog._rows(self._transaction, prefix, self._catalog._parse_manifest).values())

    def get(self, kind: Kind, row_id: str) -> dict[str, Any] | None:
        """Return a row, None if there is none."""
        key = _row_key(kind, row_id)
        value = self._transaction.get(key)
        return None if value is None else self._catalog._from_json(key, value)

    def all(self, kind: Kind) -> dict[str, dict[str, Any]]:
        """Return all rows of a kind, by id."""
        prefix = _row_key(kind, "")
        return _by_id(prefix, self._catalog._rows(self._transaction, prefix, self._catalog._from_json))

    def put(self, kind: Kind, row_id: str, data: Mapping[str, Any]) -> None:
        """Store a row, in place of an earlier one of that id. Raises: ValueError (as ``put_row``)."""
        self._transaction.put(_row_key(kind, row_id), _to_json(dict(data)))

    def delete(self, kind: Kind, row_id: str) -> bool:
        """Remove a row; say whether there was one."""
        return bool(self._transaction.delete(_row_key(kind, row_id)))

    def put_manifest(self, record: ManifestRecord) -> None:
        """Store a manifest's row."""
        self._transaction.put(_row_key("manifest", record.row_id), _to_json(record.to_json()))

    def delete_manifest(self, record: ManifestRecord) -> None:
        """Remove a manifest's row."""
        self._transaction.delete(_row_key("manifest", record.row_id))

    def policies(self, dataset_id: int) -> dict[str, Mapping[str, Any]]:
        """Return what policies say of a dataset, by path."""
        prefix = _row_key("policy", _policy_rows_of(dataset_id))
        found = self._catalog._rows(self._transaction, prefix, self._catalog._parse_policy).values()
        return {row["path"]: row["policy"] for row in found}

    def put_policy(self, dataset_id: int, path: str, policy: Mapping[str, Any]) -> None:
        """Store what is said of a path in place of what was; nothing takes the row away."""
        key = _row_key("policy", _policy_rows_of(dataset_id) + path_hash(path).hex())
        if policy:
            row = {"dataset_id": dataset_id, "path": path, "policy": dict(policy)}
            self._transaction.put(key, _to_json(row))
        else:
            self._transaction.delete(key)

    def _take_number(self, key: bytes, last: int, what: str) -> int:
        stored = self._transaction.get(key)
        try:
            number = int(stored or _FIRST_NUMBER)
        except ValueError as error:
            raise self._catalog._damaged(f"the row {key!r}: {error}") from error
        if number > last:
            raise ConfigError(f"all {what} are used up; begin a new cache directory")
        self._transaction.put(key, str(number + 1).encode())
        return number


def _policy_rows_of(dataset_id: int) -> str:
    return f"{dataset_id:08x}/"


def cure(path: str) -> str:
    """Say what to do about a damaged catalog."""
    return (
        f"end all users of the cache and put {path}{BACKUP_SUFFIX} in its place "
        "(docs/operations.md, Restoring the catalog)"
    )


def _by_id(prefix: bytes, found: Mapping[bytes, _T]) -> dict[str, _T]:
    return {key[len(prefix) :].decode(): data for key, data in found.items()}


def is_row_id(text: str) -> bool:
    """Say whether a text can be the id of a row."""
    return len(text) <= _ROW_ID_CHARACTERS_MAX and text.isascii()


def _row_key(kind: Kind, row_id: str) -> bytes:
    if kind not in _KINDS:
        raise ValueError(f"rows are of the kinds {', '.join(_KINDS)}, not {kind!r}")
    if not is_row_id(row_id):
        raise ValueError(f"the id of a row has up to {_ROW_ID_CHARACTERS_MAX} ASCII characters: {row_id!r}")
    return f"{kind}/{row_id}".encode("ascii")


def _to_json(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, allow_nan=False).encode()
