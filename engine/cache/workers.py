"""Threads for work that may never end: started as they are needed, and left behind where they have to be.

A request to a server that is silent ends when its time is out, and nothing ends it before. So these are
daemon threads: neither who closes what they work for nor the interpreter's end waits for them for long.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final


class Workers:
    """As many threads as there was work for at a time. Threads: any."""

    def __init__(self, name: str) -> None:
        """Start none yet; the threads' names begin with name."""
        self._name: Final = name
        self._lock: Final = threading.Lock()
        self._work: Final[queue.SimpleQueue[Callable[[], None] | None]] = queue.SimpleQueue()
        self._threads: Final[list[threading.Thread]] = []
        # Work that was given and has not ended: for each there is a thread.
        self._pending_count = 0

    def run(self, work: Callable[[], None]) -> None:
        """Have an idle thread do this, or a new one; it raises nothing.

        Raises: RuntimeError (the interpreter ends, and no thread is started any more).
        """
        with self._lock:
            # In this order: whatever an interrupt leaves undone, the next call makes up for.
            self._pending_count += 1
            self._work.put(work)
            while len(self._threads) < self._pending_count:
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)

    def close(self, patience_s: float) -> None:
        """Let idle threads end, and wait for those at work, for so long together; may be called twice."""
        with self._lock:
            threads = list(self._threads)
            for _ in threads:
                self._work.put(None)
        deadline_s = time.monotonic() + patience_s
        for thread in threads:
            if thread is threading.current_thread():
                continue
            thread.join(max(deadline_s - time.monotonic(), 0.0))

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            # What it held is not to be held until there is more to do.
            del work
            with self._lock:
                self._pending_count -= 1
