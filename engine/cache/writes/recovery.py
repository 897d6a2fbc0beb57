"""What killed writes have left: removed at the storage and on local disk, and their paths looked up anew.

Begun when a cache is opened, in a thread of its own, for a storage may take its time to answer. What cannot
be removed keeps its ticket, for whoever opens the cache next.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from forebay.cache.writes.knowledge import doubt
from forebay.cache.writes.tickets import Tickets
from forebay.clock import Clock
from forebay.errors import ConfigError
from forebay.meta import Entries
from forebay.ufs import StorageFactory, open_storage

_log = logging.getLogger(__name__)

_CLOSE_TIMEOUT_S: Final = 5.0


class Recovery:
    """Sees to abandoned tickets, for one process."""

    def __init__(
        self,
        tickets: Tickets,
        entries: Entries,
        clock: Clock,
        schemes: Mapping[str, StorageFactory],
        on_stale: Callable[[], None],
    ) -> None:
        """Use these; nothing is begun. on_stale is called when versions have become stale."""
        self._clock: Final = clock
        self._tickets: Final = tickets
        self._entries: Final = entries
        self._schemes: Final = schemes
        self._on_stale: Final = on_stale
        self._thread: threading.Thread | None = None
        # Held while the entries are used, which close with the cache.
        self._lock: Final = threading.Lock()
        self._closed = False

    def begin(self) -> None:
        """Go on with what earlier processes left, if anything, in the background."""
        if self._tickets.any():
            self._thread = threading.Thread(target=self._run, name="forebay-recovery", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait for it, but not for a storage that does not answer."""
        with self._lock:
            self._closed = True
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        for ticket in self._tickets.abandoned():
            if self._closed:
                ticket.let_go()
                return
            try:
                self._see_to(ticket.read())
            except (OSError, ConfigError) as error:
                _log.warning("what a killed write has left is still there: %s", error)
                ticket.let_go()
            else:
                ticket.remove()
        with self._lock:
            if not self._closed:
                # Nobody learns of another version in place of one that was forgotten.
                self._on_stale()

    def _see_to(self, facts: Mapping[str, Any]) -> None:
        """Remove what the notes of one write tell of. Raises: OSError; ConfigError (no such storage)."""
        with self._lock:
            if not self._closed and "paths" in facts:
                # Whether or not it came to that: whoever asks gets what there is.
                trees_ns = self._clock.boot_ns() if facts["trees"] else None
                doubt(self._entries, facts["dataset"], facts["paths"], trees_ns)
        if "staged" in facts:
            with suppress(FileNotFoundError):
                Path(facts["staged"]).unlink()
        if "uri" not in facts:
            return
        storage = open_storage(facts["uri"], facts["options"], self._schemes)
        try:
            writer = storage.writer()
            if writer is not None:
                writer.undo(facts)
        finally:
            storage.close()
