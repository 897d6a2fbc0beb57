"""Files in, pool tasks out: small files in batches, large ones in parts, and never many tasks ahead.

So many tasks may be given to the pool and not have ended; whoever feeds waits. What a task gives back (a
listed file that turned out to be large, one that changed meanwhile, what may not be asked for just now) is
fed again. Tasks never sleep for their turn: the threads of the pool are readers' and readahead's as well.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Final, NamedTuple

from forebay.cache.loads.file import FileLoader, LoadItem, LoadStopped
from forebay.cache.loads.large import LargeFile
from forebay.cache.loads.throttle import NotNow
from forebay.cache.pool import FetchPool, Kind
from forebay.config import MIB

_BATCH_FILES_MAX: Final = 8
_BATCH_BYTES_MAX: Final = 8 * MIB
_TASKS_AHEAD: Final = 32
_STEP_S: Final = 0.25


class _Task(NamedTuple):
    size_bytes: int
    run: Callable[[], None]


class Feeder:
    """Feeds one run. ``run`` is for one thread."""

    def __init__(self, pool: FetchPool, loader: FileLoader, *, dry_run: bool, stop: threading.Event) -> None:
        """Give tasks to this pool until stop is set."""
        self._pool: Final = pool
        self._loader: Final = loader
        self._dry_run: Final = dry_run
        self._stop: Final = stop
        self._room: Final = threading.Semaphore(_TASKS_AHEAD)
        self._again: Final[deque[LoadItem]] = deque()
        # Tasks that were told not to go on before a time.
        self._later: Final[deque[_Task]] = deque()
        self._not_before_s = 0.0
        # Those at work; only the feeding thread changes the list.
        self._large: list[LargeFile] = []
        self._error: BaseException | None = None

    def run(self, pages: Iterable[Iterable[LoadItem]]) -> None:
        """Load all items, page by page as they come, and return when the last has ended.

        Raises: LoadStopped; what stopped a task, or the pages.
        """
        try:
            for page in pages:
                self._feed(page)
            while self._feed_again():
                pass
        except BaseException:
            self._stop.set()
            raise
        finally:
            # Tasks use what this run has open, so none may outlive it.
            self._wait_for_all()
            for file in self._large:
                if not file.is_settled:
                    file.abandon()
        self._check()

    def _feed_again(self) -> bool:
        """Wait for all tasks, then feed what they gave back; return False if that was nothing."""
        self._wait_for_all()
        self._check()
        if not self._again and not self._later:
            return False
        while self._later:
            self._submit(self._later.popleft())
        self._feed(self._take_again())
        return True

    def _take_again(self) -> Iterator[LoadItem]:
        while self._again:
            yield self._again.popleft()

    def _feed(self, items: Iterable[LoadItem]) -> None:
        batch: list[LoadItem] = []
        size_bytes = 0
        for item in items:
            if self._loader.declines(item):
                continue
            if item.is_large:
                self._feed_large(item)
                continue
            # What is not known yet counts as small.
            size = item.entry.size if item.entry else 0
            if batch and (len(batch) == _BATCH_FILES_MAX or size_bytes + size > _BATCH_BYTES_MAX):
                self._give(self._batch_task(batch))
                batch, size_bytes = [], 0
            batch.append(item)
            size_bytes += size
            # Only as many as there are tasks: they are begun before more is taken.
            while self._again and self._again[0].is_large:
                self._feed_large(self._again.popleft())
        if batch:
            self._give(self._batch_task(batch))

    def _feed_large(self, item: LoadItem) -> None:
        file = LargeFile(self._loader, item, dry_run=self._dry_run)
        self._large = [known for known in self._large if not known.is_settled] + [file]
        for part in file.parts():
            self._give(_Task(part[1] - part[0], partial(self._bring_part, file, part)))
        self._keep(file.close())

    def _batch_task(self, batch: list[LoadItem]) -> _Task:
        """Make one task of a batch, under one permit if the sizes of its files are known."""
        sizes = [item.entry.size for item in batch if item.entry is not None]
        size_bytes = max(max(sizes), 1) if len(sizes) == len(batch) else 0
        return _Task(size_bytes, partial(self._load_batch, batch, permitted=size_bytes > 0))

    def _load_batch(self, batch: list[LoadItem], *, permitted: bool) -> None:
        for number, item in enumerate(batch):
            try:
                self._keep(self._loader.load(item, permitted=permitted))
            except NotNow as turn:
                self._put_off(turn, batch[number:])
                return

    def _put_off(self, turn: NotNow, batch: list[LoadItem]) -> None:
        self._not_before_s = time.monotonic() + turn.wait_s
        self._later.append(self._batch_task(batch))

    def _bring_part(self, file: LargeFile, part: tuple[int, int]) -> None:
        try:
            self._keep(file.bring(part))
        except NotNow as turn:
            self._not_before_s = time.monotonic() + turn.wait_s
            self._later.append(_Task(part[1] - part[0], partial(self._bring_part, file, part)))

    def _keep(self, item: LoadItem | None) -> None:
        if item is not None:
            self._again.append(item)

    def _give(self, task: _Task) -> None:
        """Give a task to the pool, behind those that were put off. Raises: as ``_submit``."""
        while self._later:
            self._submit(self._later.popleft())
        self._submit(task)

    def _submit(self, task: _Task) -> None:
        """Give a task to the pool once there is room, under a permit for its bytes; 0: it takes its own.

        Raises: LoadStopped; what stopped another task.
        """
        while not self._room.acquire(timeout=_STEP_S):
            self._check()
        try:
            while (wait_s := self._not_before_s - time.monotonic()) > 0:
                self._check()
                self._stop.wait(min(wait_s, _STEP_S))
            self._check()
            future = self._pool.submit(Kind.LOAD, task.size_bytes, partial(self._guarded, task.run))
        except RuntimeError as error:
            # The interpreter ends, and no thread takes work any more: a later run goes on.
            self._room.release()
            raise LoadStopped from error
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(self._ended)

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            self._loader.check_stopped()
            task()
        except LoadStopped:
            return
        except Exception as error:  # noqa: BLE001  (it ends the run, which raises it)
            self._error = self._error or error
            self._stop.set()

    def _ended(self, future: Future[None]) -> None:
        if future.cancelled():
            # The pool is closed: this process ends, and a later run goes on.
            self._stop.set()
        self._room.release()

    def _wait_for_all(self) -> None:
        for _ in range(_TASKS_AHEAD):
            self._room.acquire()
        self._room.release(_TASKS_AHEAD)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        self._loader.check_stopped()
