"""How far long work is: a bar on a terminal, elsewhere a plain line now and then, both on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from forebay.cli.interrupt import undone_if_interrupted
from forebay.cli.text import printable, size_text

_LINE_EVERY_S: Final = 5.0

Advance = Callable[[int], None]


@contextmanager
def progress_of(what: str, total_bytes: int, *, quiet: bool = False) -> Iterator[Advance]:
    """Give a function to call with each number of bytes that are done, from any thread.

    quiet: show nothing, for output that a program reads.
    """
    if quiet:
        yield lambda count_bytes: None
    elif sys.stderr.isatty():
        with _bar(what, total_bytes) as advance:
            yield advance
    else:
        yield _Lines(what, total_bytes).advance


@contextmanager
def _bar(what: str, total_bytes: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as SpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), SpeedColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task = bar.add_task(printable(what), total=total_bytes)
    with undone_if_interrupted(bar.stop), bar:
        yield lambda count_bytes: bar.advance(task, count_bytes)


class _Lines:
    """Says every few seconds how far it is. Threads: any."""

    def __init__(self, what: str, total_bytes: int) -> None:
        self._what: Final = what
        self._total_bytes: Final = total_bytes
        self._lock: Final = threading.Lock()
        self._done_bytes = 0
        self._said_s = time.monotonic()

    def advance(self, count_bytes: int) -> None:
        with self._lock:
            self._done_bytes += count_bytes
            now_s = time.monotonic()
            if now_s - self._said_s < _LINE_EVERY_S:
                return
            self._said_s = now_s
            done, total = size_text(self._done_bytes), size_text(self._total_bytes)
        click.echo(f"{printable(self._what)}: {done} of {total}", err=True)
