"""A load as it goes on: a bar on a terminal, elsewhere a line now and then; and in words how it ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from forebay.cache.loads.load import LoadJob, LoadRequest, LoadResult, Progress
from forebay.cli.interrupt import undone_if_interrupted
from forebay.cli.text import printable, size_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_LOOK_EVERY_S: Final = 0.2
_LINE_EVERY_S: Final = 5.0

Show = Callable[[Progress], None]


def follow(job: LoadJob, *, quiet: bool) -> LoadResult:
    """Show on standard error how far a job is until nobody runs it, and return how it ended."""
    with _shown(job, quiet=quiet) as show:
        while True:
            try:
                return job.wait(_LOOK_EVERY_S)
            except TimeoutError:
                show(job.progress())


def outcome_text(result: LoadResult, request: LoadRequest) -> str:
    """Say what a load did, as its last line on standard output."""
    figures = result.progress
    skipped = f"{figures.files_skipped} files, {size_text(figures.bytes_skipped)}"
    if request.metadata_only:
        words = f"listed {figures.files_done} files, {size_text(figures.bytes_total or 0)}"
        return words + _manifest_text(result, request)
    done = f"{figures.files_done} files, {size_text(figures.bytes_done)}"
    if request.dry_run:
        return f"would fetch {done}; cached already: {skipped}"
    verb = "loaded and verified" if request.verify else "loaded"
    return f"{verb} {done}; cached already: {skipped}{_manifest_text(result, request)}"


def _manifest_text(result: LoadResult, request: LoadRequest) -> str:
    if request.manifest is None or not result.ok:
        return ""
    return f"; manifest {request.manifest}{' is in use' if request.use_manifest else ' is made'}"


def state_text(result: LoadResult) -> str:
    """Say in what state a load is, and why if that is known."""
    return f"{result.state}: {result.reason}" if result.reason not in ("", result.state) else result.state


def progress_text(figures: Progress) -> str:
    """Say in a line how far a load is."""
    if figures.files_total is None:
        parts = [f"{figures.files_settled} files, still listing"]
    else:
        parts = [f"{figures.files_settled} of {figures.files_total} files"]
    settled_bytes = figures.bytes_done + figures.bytes_skipped
    of_total = "" if figures.bytes_total is None else f" of {size_text(figures.bytes_total)}"
    parts.append(f"{size_text(settled_bytes)}{of_total}")
    if figures.rate > 0:
        parts.append(f"{size_text(figures.rate)}/s")
    bad = figures.files_failed + figures.files_not_admitted + figures.files_evicted
    if bad:
        parts.append(f"{bad} not cached")
    if figures.eta is not None:
        parts.append(f"{figures.eta:.0f} s left")
    return ", ".join(parts)


@contextmanager
def _shown(job: LoadJob, *, quiet: bool) -> Iterator[Show]:
    if quiet:
        yield lambda figures: None
    elif sys.stderr.isatty():
        with _bar(job.request.target) as show:
            yield show
    else:
        yield _Lines(job.request.target).show


@contextmanager
def _bar(target: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn())
    bar = Progress(*columns, TextColumn("{task.fields[words]}"), console=Console(stderr=True), transient=True)
    task = bar.add_task(printable(target), total=None, words="listing")
    with undone_if_interrupted(bar.stop), bar:
        yield lambda figures: _update(bar, task, figures)


def _update(bar: Bar, task: TaskID, figures: Progress) -> None:
    """Move the bar by bytes where all sizes are known, else by files."""
    settled_bytes, total_bytes = figures.bytes_done + figures.bytes_skipped, figures.bytes_total
    if total_bytes:
        bar.update(task, completed=settled_bytes, total=total_bytes, words=progress_text(figures))
    else:
        settled, total = figures.files_settled, figures.files_total
        bar.update(task, completed=settled, total=total, words=progress_text(figures))


class _Lines:
    """Says every few seconds how far it is."""

    def __init__(self, target: str) -> None:
        self._target: Final = target
        self._said_s = time.monotonic()

    def show(self, figures: Progress) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= _LINE_EVERY_S:
            self._said_s = now_s
            click.echo(f"{printable(self._target)}: {progress_text(figures)}", err=True)
