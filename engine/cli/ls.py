"""``ls`` and ``stat``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from forebay.cache import Cache, FileStatus
from forebay.cli.each import Failures, below, for_each
from forebay.cli.kinds import CACHE_PATH
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_lines, echo_table, json_array, printable, size_text, time_text

_Show = Callable[[FileStatus], None]


@click.command()
@common_options
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=CACHE_PATH)
@click.option("-l", "long", is_flag=True, help="With size, time of change (UTC) and version.")
@click.option("-R", "--recursive", is_flag=True, help="With everything below.")
@click.option("--human", is_flag=True, help="Sizes as 1.5 GiB rather than in bytes.")
@pass_session
def ls(session: Session, paths: tuple[str, ...], long: bool, recursive: bool, human: bool) -> int:
    """List what lies in each PATH; without one, the datasets."""
    failures = Failures(session)
    with session.open_cache() as cache, _printer(session, long, recursive, human) as show:

        def list_one(path: str) -> None:
            found = _content(cache, path)
            for status in below(cache, found, failures) if recursive else found:
                show(status)

        return for_each(paths or ("",), session, list_one, failures)


@click.command()
@common_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=CACHE_PATH)
@pass_session
def stat(session: Session, paths: tuple[str, ...]) -> int:
    """Describe each PATH: size, time of change and version."""
    with session.open_cache() as cache:
        if session.as_json:
            with json_array() as array:
                return for_each(paths, session, lambda path: array.add(_plain(cache.stat(path))))
        return for_each(paths, session, lambda path: _describe(cache.stat(path)))


@contextmanager
def _printer(session: Session, long: bool, recursive: bool, human: bool) -> Iterator[_Show]:
    """Give what prints one status; all but a table is printed at once, for there may be millions."""
    if session.as_json:
        with json_array() as array:
            yield lambda status: array.add(_plain(status))
    elif not long:
        yield lambda status: click.echo(printable(_shown(status)))
    elif recursive:
        yield lambda status: echo_lines([_long_row(status, human)])
    else:
        rows: list[tuple[str, ...]] = []
        yield lambda status: rows.append(_long_row(status, human))
        echo_table(("size", "modified", "version", "path"), rows)


def _content(cache: Cache, path: str) -> Iterator[FileStatus]:
    """Yield what lies in a directory; an object is its own content, as for the ls of a shell."""
    if not path:
        yield from (cache.stat(name) for name in cache.listdir())
        return
    try:
        yield from cache.scandir(path)
    except NotADirectoryError:
        yield cache.stat(path)


def _plain(status: FileStatus) -> dict[str, Any]:
    return {
        "path": status.path,
        "size": status.size,
        "mtime_ns": status.mtime_ns,
        "version": status.version,
        "is_dir": status.is_dir,
    }


def _describe(status: FileStatus) -> None:
    kind = "directory" if status.is_dir else f"{status.size} bytes"
    version = printable(status.version) or "-"
    click.echo(f"{printable(status.path)}: {kind}, {time_text(status.mtime_ns)}, {version}")


def _shown(status: FileStatus) -> str:
    return f"{status.path}/" if status.is_dir else status.path


def _long_row(status: FileStatus, human: bool) -> tuple[str, ...]:
    size = size_text(status.size) if human else str(status.size)
    return (
        "-" if status.is_dir else size,
        time_text(status.mtime_ns),
        status.version or "-",
        _shown(status),
    )
