"""What a load has brought, collected to become a manifest when the load is done."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from forebay.cache.manifests.manage import Building, ManifestStatus
from forebay.meta import Entry

_PAGE: Final = 1_000


class CollectError(RuntimeError):
    """The manifest cannot be written: no fault of the file that was to be added, but the end of the load."""


class Collector:
    """Adds objects to a manifest as they are brought. Threads: any; a context manager, as Building."""

    def __init__(self, building: Building) -> None:
        """Collect for this one."""
        self._building: Final = building
        self._lock: Final = threading.Lock()
        self._page: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Add an object. Raises: CollectError."""
        with self._lock:
            self._page.append(entry)
            if len(self._page) >= _PAGE:
                self._flush()

    def add_page(self, entries: Sequence[Entry]) -> None:
        """Add many objects. Raises: CollectError."""
        with self._lock:
            self._page += entries
            self._flush()

    def publish(self, *, use: bool) -> ManifestStatus:
        """Let the manifest come into being. Raises: CollectError; as Building.publish."""
        with self._lock:
            self._flush()
        return self._building.publish(use=use)

    def _flush(self) -> None:
        page, self._page = self._page, []
        try:
            self._building.add(page)
        except OSError as error:
            raise CollectError(f"{error.filename}: {error.strerror}") from error
        except ValueError as error:
            raise CollectError(str(error)) from error

    def __enter__(self) -> Self:
        """Return this collector."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take away what was not published."""
        self._building.__exit__(kind, value, trace)
