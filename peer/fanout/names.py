"""A file list on its way to the members: read once, kept on disk, given to each."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from typing import Final

from forebay.cache.loads.file import FileResult
from forebay.cache.loads.filelist import ListedName
from forebay.peer.paths import encoded


class NameList:
    """Names below the target of a load. Threads: any, once it is made."""

    def __init__(self, listed: Iterable[ListedName]) -> None:
        """Read all names; bad lines are kept apart. Raises: as iterating over the list; OSError."""
        self.bad: Final[list[FileResult]] = []
        self._file: Final = tempfile.NamedTemporaryFile("w+", prefix="forebay-names-")  # noqa: SIM115
        for name in listed:
            if name.error is None:
                self._file.write(json.dumps(name.name) + "\n")
            else:
                self.bad.append(FileResult(name.name, "failed", line=name.line, error=name.error))
        self._file.flush()

    def batches(self, count: int) -> Iterator[list[bytes]]:
        """Yield the names in their order, so many at a time, as bytes."""
        batch: list[bytes] = []
        with open(self._file.name) as lines:
            for line in lines:
                batch.append(encoded(json.loads(line)))
                if len(batch) == count:
                    yield batch
                    batch = []
        if batch:
            yield batch
