"""What the catalog says of a manifest: that it is complete, how much it lists, and what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

# An inode of a manifest says which one it is of: what the entries give stays far below.
_INODE_BITS: Final = 40
NUMBER_MAX: Final = (1 << (64 - _INODE_BITS)) - 1


@dataclass(frozen=True)
class ManifestRecord:
    """A version of a dataset: an immutable list of objects.

    number is given once in a cache directory and names the manifest's file. objects and bytes are what it
    lists; created is in seconds since 1970; source says in words what it was made of, and job which load
    made it. is_ordered: an order lies beside it. is_deleted: it is shown to nobody, and what is left of it is
    about to go.
    """

    version: str
    dataset_id: int
    number: int
    objects: int
    bytes: int
    created: float
    source: str
    job: str | None = None
    is_ordered: bool = False
    is_deleted: bool = False

    @property
    def file_name(self) -> str:
        """The name that its files have, without what they end in; no other manifest's have it ever."""
        return f"{self.number}-{self.version}"

    @property
    def row_id(self) -> str:
        """The id of its row in the catalog."""
        return f"{manifest_rows_of(self.dataset_id)}{self.number}"

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ManifestRecord:
        """Make what ``to_json`` gave; what a later version added is left out. Raises: TypeError."""
        return cls(**{one.name: value[one.name] for one in fields(cls) if one.name in value})


def manifest_rows_of(dataset_id: int) -> str:
    """Return what the ids of all rows of a dataset's manifests begin with."""
    return f"{dataset_id}/"


def first_inode_of(number: int) -> int:
    """Return the inode that the first entry of a manifest has."""
    return number << _INODE_BITS


def manifest_of_inode(inode: int) -> int:
    """Return the number of the manifest that an entry is of, 0 if it is of none."""
    return inode >> _INODE_BITS
