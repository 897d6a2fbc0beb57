"""What the cache tells of paths: plain records, fit for printing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay.meta import Entry

if TYPE_CHECKING:
    from forebay.meta import Known


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What a path names: an object with its size and version, or a directory, which has neither."""

    path: str
    size: int
    mtime_ns: int
    version: str
    is_dir: bool

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class SyncReport:
    """How many objects a sync found that were not known, had another version, or are no longer there."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    def __add__(self, other: SyncReport) -> SyncReport:
        """Add two counts."""
        return SyncReport(
            self.added + other.added, self.changed + other.changed, self.removed + other.removed
        )


def status_of_known(known: Known) -> FileStatus:
    """Describe what was looked up lately."""
    return FileStatus(known.path, known.size, known.mtime_ns, known.version, known.is_dir)


def status_of(dataset: str, entry: Entry) -> FileStatus:
    """Describe an entry of the dataset of that name."""
    return FileStatus(f"{dataset}/{entry.path}", entry.size, entry.mtime_ns, entry.version, entry.is_dir)
