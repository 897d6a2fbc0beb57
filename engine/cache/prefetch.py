"""Prefetch: an iterator over objects in the order of their paths, which keeps ahead of whoever iterates.

It pulls paths as there is room for them, one thread at a time and in the reader's own thread, and gives each
object when the reader comes to it. What it gives, and raises, is what ``read`` would at that moment.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from forebay.cache.window import Upcoming, Window

if TYPE_CHECKING:
    from forebay.store import View

# Paths ahead: of small objects many fit into a window's bytes, and each takes memory of its own.
PATHS_AHEAD_MAX: Final = 1_024
# While nothing is waited for, the window opens by one with each object that is read.
_PULLED_AT_ONCE: Final = 2
# While one object is long in coming it opens by so many in each moment.
_PULLED_MEANWHILE: Final = 8


class Prefetcher(Iterator["tuple[str, View]"]):
    """Pairs of path and view, in order; made by ``Cache.prefetch``.

    An iterator and a context manager. An exception belongs to the path that it names, and the next call goes
    on behind it. After a fork the child goes on for itself. Threads: one at a time.
    """

    def __init__(
        self,
        paths: Iterable[str],
        make_window: Callable[[], Window],
        read: Callable[[str], View],
        note: Callable[[str, int, int], None],
    ) -> None:
        """Pull from paths as there is room.

        make_window gives the calling process's own; read reads a path, and note is told (path, offset,
        length) of what was not read by it. Raises: TypeError (no iterable, or one path by itself).
        """
        if isinstance(paths, str):
            raise TypeError(f"prefetch takes an iterable of paths, not the one path {paths!r}")
        self._paths: Iterator[str] | None = iter(paths)
        self._make_window: Final = make_window
        self._read: Final = read
        self._note: Final = note
        self._window = make_window()
        self._pid = os.getpid()
        self._ahead: deque[Upcoming] = deque()
        # A path that was pulled and for which there was no room yet.
        self._next: str | None = None
        # What the iterable of paths ended with, for when the reader comes to that place.
        self._error: Exception | None = None

    def __iter__(self) -> Self:
        """Return this iterator."""
        return self

    def __next__(self) -> tuple[str, View]:
        """Return the next path and a view of its object. Raises: as ``Cache.read``; what paths raised."""
        if self._pid != os.getpid():
            self._begin_in_child()
        self._look_ahead()
        if not self._ahead:
            error, self._error = self._error, None
            raise error or StopIteration
        upcoming = self._ahead[0]
        try:
            while not self._window.has_come(upcoming):
                self._look_ahead(_PULLED_MEANWHILE)
        finally:
            # Its room is the reader's from here on.
            self._window.give_up([self._ahead.popleft()])
        view = self._window.view(upcoming)
        if view is None:
            return upcoming.path, self._read(upcoming.path)
        self._note(upcoming.path, 0, len(view))
        return upcoming.path, view

    def close(self) -> None:
        """End: fetch no more, and give up what was fetched ahead; what is under way ends by itself."""
        self._paths = self._next = self._error = None
        ahead, self._ahead = self._ahead, deque()
        if self._pid == os.getpid():
            self._window.give_up(ahead)

    def __enter__(self) -> Self:
        """Return this iterator."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        """Close, for a loop that was left early."""
        if hasattr(self, "_error"):
            self.close()

    def _begin_in_child(self) -> None:
        """Let go of what only the parent's threads fetch: a forked child has none of them."""
        self._window, self._pid = self._make_window(), os.getpid()
        self._ahead = deque(Upcoming(upcoming.path) for upcoming in self._ahead)

    def _look_ahead(self, count: int = _PULLED_AT_ONCE) -> None:
        """Pull so many paths, and while the next object is on its way all that is worth a hurry."""
        pulled = 0
        while len(self._ahead) < PATHS_AHEAD_MAX:
            if pulled >= count and (self._ahead[0].is_ready or self._window.is_far):
                return
            if self._next is None:
                self._pull()
            if self._next is None:
                return
            upcoming = self._window.begin(self._next)
            if upcoming is None and self._ahead:
                return
            # The very next is read as it is, where nothing may be fetched ahead.
            self._ahead.append(upcoming or Upcoming(self._next))
            self._next = None
            pulled += 1

    def _pull(self) -> None:
        """Take the next path, if there is one."""
        if self._paths is None:
            return
        try:
            self._next = next(self._paths)
        except StopIteration:
            self._paths = None
        except Exception as error:  # noqa: BLE001  (raised when the reader comes to this place)
            self._paths, self._error = None, error
