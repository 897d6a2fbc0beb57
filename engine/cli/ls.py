"""``ls`` and ``stat``."""

from __future__ import annotations

from dataclasses import asdict

import click

from forebay.cache import Cache, FileStatus
from forebay.cli.each import for_each
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table, printable, size_text, time_text


@click.command()
@common_options
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("-l", "long", is_flag=True, help="With sizes and times.")
@pass_session
def ls(session: Session, paths: tuple[str, ...], long: bool) -> int:
    """List what lies in each PATH; without one, the datasets."""
    listed: list[FileStatus] = []
    with session.open_cache() as cache:
        failed = for_each(paths or ("",), session, lambda path: listed.extend(_content(cache, path)))
    if session.as_json:
        echo_json([asdict(status) for status in listed])
    elif long:
        echo_table(("size", "modified", "path"), [_long_row(status) for status in listed])
    else:
        for status in listed:
            click.echo(printable(_shown(status)))
    return failed


@click.command()
@common_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@pass_session
def stat(session: Session, paths: tuple[str, ...]) -> int:
    """Describe each PATH: size, time of change and version."""
    found: list[FileStatus] = []
    with session.open_cache() as cache:
        failed = for_each(paths, session, lambda path: found.append(cache.stat(path)))
    if session.as_json:
        echo_json([asdict(status) for status in found])
        return failed
    for status in found:
        kind = "directory" if status.is_dir else f"{status.size} bytes"
        click.echo(f"{printable(status.path)}: {kind}, {time_text(status.mtime_ns)}, {status.version or '-'}")
    return failed


def _content(cache: Cache, path: str) -> list[FileStatus]:
    """Return what lies in a directory; an object is its own content, as for the ls of a shell."""
    if not path:
        return [cache.stat(name) for name in cache.listdir()]
    try:
        return cache.scandir(path)
    except NotADirectoryError:
        return [cache.stat(path)]


def _shown(status: FileStatus) -> str:
    return f"{status.path}/" if status.is_dir else status.path


def _long_row(status: FileStatus) -> tuple[str, str, str]:
    return ("-" if status.is_dir else size_text(status.size), time_text(status.mtime_ns), _shown(status))
