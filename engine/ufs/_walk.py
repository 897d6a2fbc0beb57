"""A tree visited by several threads, its pages handed to one consumer through a bounded queue.

What a task is (a directory, a range of keys) is the caller's affair: visiting one yields pages and further
tasks. Tasks are taken last in, first out, so that those that wait are the siblings along a few branches and
not a whole level of the tree.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Generic, TypeVar

_Task = TypeVar("_Task")
_Item = TypeVar("_Item")

# Pages that wait for the consumer, for each worker: enough that none idles while the consumer works a page.
_PAGES_A_WORKER: Final = 2


def visit_in_parallel(
    tasks: Iterable[_Task],
    visit: Callable[[_Task], Iterator[tuple[Sequence[_Item], Iterable[_Task]]]],
    workers: int,
) -> Iterator[Sequence[_Item]]:
    """Yield the pages of all tasks and of those that come from them, in no promised order.

    visit is called in the workers, once a task, and yields (a page, further tasks) any number of times; an
    empty page is not passed on. The caller guarantees workers >= 1. The first exception ends the walk and is
    raised here, after the pages that came before it. Closing the iterator stops the workers: none begins
    another step, and one in the middle of a request ends with it, on its own time. One worker is the consumer
    itself, without a thread.
    """
    return _visit_in_turn(tasks, visit) if workers == 1 else _Visit(tasks, visit, workers).pages()


def _visit_in_turn(
    tasks: Iterable[_Task], visit: Callable[[_Task], Iterator[tuple[Sequence[_Item], Iterable[_Task]]]]
) -> Iterator[Sequence[_Item]]:
    waiting = list(tasks)
    while waiting:
        for page, further in visit(waiting.pop()):
            waiting.extend(further)
            if page:
                yield page


class _Visit(Generic[_Task, _Item]):
    """What the workers and the consumer share, all of it under one condition's lock."""

    def __init__(
        self,
        tasks: Iterable[_Task],
        visit: Callable[[_Task], Iterator[tuple[Sequence[_Item], Iterable[_Task]]]],
        workers: int,
    ) -> None:
        self._visit = visit
        self._workers = workers
        self._changed = threading.Condition()
        self._waiting = list(tasks)
        # Tasks waiting or at work: at zero there is nothing more to come.
        self._unfinished = len(self._waiting)
        self._pages: deque[Sequence[_Item]] = deque()
        self._error: BaseException | None = None
        self._stopped = False

    def pages(self) -> Iterator[Sequence[_Item]]:
        """Start the workers, yield what they find, and stop them however this ends."""
        try:
            for number in range(self._workers):
                threading.Thread(target=self._work, name=f"forebay-walk-{number}", daemon=True).start()
            while (page := self._next_page()) is not None:
                yield page
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify_all()

    def _next_page(self) -> Sequence[_Item] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pages or self._error is not None or not self._unfinished)
            if self._pages:
                self._changed.notify_all()
                return self._pages.popleft()
            if self._error is not None:
                raise self._error
            return None

    def _work(self) -> None:
        try:
            while self._step_through_a_task():
                pass
        except BaseException as error:  # noqa: BLE001  (the consumer raises it)
            with self._changed:
                self._error = self._error or error
                self._stopped = True
                self._changed.notify_all()

    def _step_through_a_task(self) -> bool:
        """Visit one task; return False when there is none left to take."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped or not self._unfinished)
            if self._stopped or not self._unfinished:
                return False
            task = self._waiting.pop()
        for page, further in self._visit(task):
            if not self._hand_over(page, list(further)):
                return False
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()
        return True

    def _hand_over(self, page: Sequence[_Item], further: Sequence[_Task]) -> bool:
        """Add tasks, then wait for room for the page; return False when nobody wants it any more."""
        with self._changed:
            if further:
                self._waiting.extend(further)
                self._unfinished += len(further)
                self._changed.notify_all()
            if page:
                room = _PAGES_A_WORKER * self._workers
                self._changed.wait_for(lambda: self._stopped or len(self._pages) < room)
                if not self._stopped:
                    self._pages.append(page)
                    self._changed.notify_all()
            return not self._stopped
