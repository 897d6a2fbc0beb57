"""Manifests as text, to be carried to another cache or made by another program: JSON, an object a line.

```
{"manifest": "v1", "dataset": "imagenet", "objects": 2, "bytes": 30, "ordered": false}
{"path": "train/a.jpg", "size": 10, "mtime_ns": 1700000000000000000, "version": "9a0364b9e99bb480"}
{"path": "train/b.jpg", "size": 20, "version": "d41d8cd98f00b204"}
```

The first line tells of the whole, and may be left out; where it is there, as many lines have to follow as it
says. Where it says ordered, the lines are in the order of access. Importing asks no under storage anything.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from typing import IO, Any, Final, TypeGuard

from forebay.cache.loads.filelist import LINE_BYTES_MAX, fault_of
from forebay.cache.manifests.manage import Building, DuplicateEntry, Manifests, ManifestStatus
from forebay.config import nearest
from forebay.errors import ConfigError
from forebay.meta import Dataset, Entry

_SIZE_MAX: Final = (1 << 63) - 1
_FIELDS: Final = ("path", "size", "version", "mtime_ns")
_PAGE: Final = 1_000


def export_lines(manifests: Manifests, name: str, version: str) -> Iterator[str]:
    """Yield a manifest as text, line by line, in the order of access if it has one.

    Raises: NotAttached, ManifestNotFound; ConfigError, OSError (it cannot be read).
    """
    status = manifests.status(name, version)
    head = {"manifest": version, "dataset": name, "objects": status.objects, "bytes": status.bytes}
    yield json.dumps({**head, "ordered": status.is_ordered}) + "\n"
    for entry in manifests.entries(name, version):
        row = {"path": entry.path, "size": entry.size, "mtime_ns": entry.mtime_ns, "version": entry.version}
        yield json.dumps(row) + "\n"


def import_lines(
    manifests: Manifests,
    dataset: Dataset,
    version: str,
    stream: IO[bytes],
    source: str,
    *,
    is_ordered: bool,
    use: bool,
) -> ManifestStatus:
    """Make a manifest of text; source is its name, is_ordered says that its lines are in the order of access.

    Raises: ConfigError (names the line and what is wrong with it; a bad version, or one that there is); as
    Building.
    """
    with manifests.build(dataset, version, source) as building, tempfile.TemporaryFile("w+") as spool:
        lines = _Lines(stream, source)
        lines.read_into(building, spool)
        try:
            building.check_count(lines.first, lines.count)
        except DuplicateEntry as error:
            raise lines.fault(error.checked_ns, "its path comes again in a later line") from error
        if is_ordered or lines.is_ordered:
            spool.seek(0)
            building.add_order(json.loads(line) for line in spool)
        return building.publish(use=use)


class _Lines:
    """The lines of one text: what the first says of the whole, and an entry in each other."""

    def __init__(self, stream: IO[bytes], source: str) -> None:
        self._stream = stream
        self._source = source
        self._head: dict[str, Any] = {}
        # The line that the first entry stands in, and how many there are.
        self.first = 1
        self.count = 0

    @property
    def is_ordered(self) -> bool:
        """Whether the first line says that they are in the order of access."""
        return bool(self._head.get("ordered"))

    def read_into(self, building: Building, spool: IO[str]) -> None:
        """Add all entries, each with its line as the time, so that it can be told of later.

        Their paths are spooled in their order. Raises: ConfigError; as Building.add.
        """
        page: list[Entry] = []
        for entry in self._entries():
            spool.write(json.dumps(entry.path) + "\n")
            page.append(entry)
            if len(page) == _PAGE:
                building.add(page)
                page = []
        building.add(page)
        told = self._head.get("objects", self.count)
        if told != self.count:
            raise ConfigError(f"{self._source}: {self.count} objects follow, the first line says {told!r}")

    def fault(self, number: int, cause: str) -> ConfigError:
        """Make what is raised for a line."""
        return ConfigError(f"{self._source}: line {number}: {cause}")

    def _entries(self) -> Iterator[Entry]:
        number = 0
        while line := self._stream.readline(LINE_BYTES_MAX + 1):
            number += 1
            row = self._row(number, line)
            if number == 1 and "manifest" in row:
                self._head, self.first = row, 2
                continue
            self.count += 1
            yield self._entry(number, row)

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        if len(line) > LINE_BYTES_MAX:
            raise self.fault(number, f"is longer than {LINE_BYTES_MAX} bytes")
        try:
            row = json.loads(line)
        except ValueError as error:
            raise self.fault(number, f"is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise self.fault(number, "is no JSON object")
        return row

    def _entry(self, number: int, row: dict[str, Any]) -> Entry:
        for name in row:
            if name not in _FIELDS:
                raise self.fault(number, f"{name!r} is unknown{nearest(name, _FIELDS)}")
        path, size, version = row.get("path"), row.get("size"), row.get("version")
        mtime_ns = row.get("mtime_ns", 0)
        if not isinstance(path, str):
            raise self.fault(number, f"path: {path!r} is no text")
        if (cause := fault_of(path)) is not None:
            raise self.fault(number, f"path: {path!r} {cause}")
        if not _is_whole(size) or not 0 <= size <= _SIZE_MAX:
            raise self.fault(number, f"size: {size!r} is no number of bytes")
        if not isinstance(version, str) or not version:
            raise self.fault(number, f"version: {version!r} is no version of an object")
        if not _is_whole(mtime_ns) or abs(mtime_ns) > _SIZE_MAX:
            raise self.fault(number, f"mtime_ns: {mtime_ns!r} is no time")
        return Entry(path, size, mtime_ns, version, False, number)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
