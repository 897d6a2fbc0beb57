"""The catalog: which datasets are attached. Small, and on disk at each commit.

Ids are given once and never again, so that what is left over of a detached dataset belongs to nobody.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from forebay.errors import ConfigError, NotAttached
from forebay.meta.environment import Environment

_PREFIX: Final = b"dataset/"
_NEXT_ID: Final = b"next-id"
_FIRST_ID: Final = 1
_ID_MAX: Final = (1 << 32) - 2


@dataclass(frozen=True)
class Dataset:
    """A named attachment of an under-storage URI.

    id is 0 until it is attached; max_age is None (immutable), 0 (always checked) or seconds; options are
    the under storage's, none of them secret.
    """

    name: str
    uri: str
    id: int = 0
    max_age: float | None = 60.0
    retention: str = "epoch"
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {**asdict(self), "options": dict(self.options)}


class Catalog:
    """The datasets of one cache directory, for this process.

    Threads: any; other processes may write as well.
    """

    def __init__(self, environment: Environment) -> None:
        """Use an environment that the caller keeps open, and closes."""
        self._environment: Final = environment
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
            self._datasets = MappingProxyType(self._read_all())
            self._read_at = commit
            return self._datasets

    def attach(self, dataset: Dataset) -> Dataset:
        """Store the dataset and return it with its id; the same name and URI again changes the settings.

        Raises: ConfigError (the name stands for another URI; all ids are used up).
        """
        key = _PREFIX + dataset.name.encode()
        with self._environment.writing() as transaction:
            stored = transaction.get(key)
            if stored is not None:
                known = _parse(stored)
                if known.uri != dataset.uri:
                    raise ConfigError(
                        f"dataset {dataset.name!r} is attached to {known.uri}; "
                        "detach it first, or take another name"
                    )
                attached = replace(dataset, id=known.id)
            else:
                new_id = int(transaction.get(_NEXT_ID) or _FIRST_ID)
                if new_id > _ID_MAX:
                    raise ConfigError("all ids of datasets are used up; begin a new cache directory")
                transaction.put(_NEXT_ID, str(new_id + 1).encode())
                attached = replace(dataset, id=new_id)
            transaction.put(key, json.dumps(attached.to_json(), sort_keys=True).encode())
        return attached

    def detach(self, name: str) -> Dataset:
        """Remove the dataset and return what it was. Raises: NotAttached."""
        key = _PREFIX + name.encode()
        with self._environment.writing() as transaction:
            stored = transaction.pop(key)
        if stored is None:
            raise NotAttached(f"no dataset {name!r} is attached")
        return _parse(stored)

    def _read_all(self) -> dict[str, Dataset]:
        with self._environment.reading() as transaction:
            cursor = transaction.cursor()
            found = []
            for key, value in cursor if cursor.set_range(_PREFIX) else ():
                if not key.startswith(_PREFIX):
                    break
                found.append(_parse(value))
        return {dataset.name: dataset for dataset in found}


def _parse(value: Any) -> Dataset:
    return Dataset(**json.loads(value))
