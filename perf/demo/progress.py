"""Progress of one phase: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

LINE_EVERY_S = 5.0


@contextmanager
def phase(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a phase of `total` steps; gives the function that tells of steps done."""
    if not console.is_terminal:
        yield _plain(console, title, total)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=total)
        yield lambda steps: bar.advance(task, steps)


def _plain(console: Console, title: str, total: int) -> Callable[[int], None]:
    done = 0
    told_s = time.monotonic()
    console.print(f"{title}: {total:,} to do")

    def advance(steps: int) -> None:
        nonlocal done, told_s
        done += steps
        if time.monotonic() - told_s >= LINE_EVERY_S:
            told_s = time.monotonic()
            console.print(f"{title}: {done:,} of {total:,}")

    return advance
