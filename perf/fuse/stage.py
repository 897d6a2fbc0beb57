"""One S3 server for all systems, and the proof that they read from their caches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forebay.testing.s3 import S3Server
from perf.system.bucket import BUCKET

VALID_S = 86_400  # how long a system is told that names and attributes hold: the whole run


@dataclass(frozen=True)
class Stage:
    """What the systems share: a folder on tmpfs, the objects in it, their server and where it is asked."""

    folder: Path
    server: S3Server
    endpoint_url: str
    load: dict[str, Any]

    @property
    def objects(self) -> Path:
        """Where the objects of the bucket lie as files."""
        return self.folder / "s3" / BUCKET

    def place(self, name: str) -> Path:
        """Make a folder for a system."""
        place = self.folder / name
        place.mkdir()
        return place

    @contextmanager
    def from_cache(self, name: str, data_bytes: int) -> Iterator[None]:
        """Hold a system to what it is to show: that its cache has the data.

        Raises: RuntimeError (the server read more than strays meanwhile; requests for attributes are strays).
        """
        before = self._read_bytes()
        yield
        fetched = self._read_bytes() - before
        if fetched > self.load["strays_share"] * data_bytes:
            raise RuntimeError(f"the server read {fetched} bytes for {name}, which had {data_bytes} cached")

    def _read_bytes(self) -> int:
        """What the server has read so far, from files and from connections."""
        first = Path(f"/proc/{self.server.pid}/io").read_text().splitlines()[0]
        return int(first.removeprefix("rchar: "))
