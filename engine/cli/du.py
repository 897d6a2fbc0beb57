"""``du``."""

from __future__ import annotations

from dataclasses import asdict

import click

from forebay.cache import Cache, Usage
from forebay.cli.each import for_each
from forebay.cli.kinds import CACHE_PATH
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table, share_text, size_text


@click.command()
@common_options
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=CACHE_PATH)
@click.option("--human", is_flag=True, help="Sizes as 1.5 GiB rather than in bytes.")
@pass_session
def du(session: Session, paths: tuple[str, ...], human: bool) -> int:
    """Count the objects below each PATH, their bytes, and how many of those are cached.

    Without a PATH, for each dataset. What is not known is asked of the under storage.
    """
    found: list[tuple[str, Usage]] = []
    with session.open_cache() as cache:
        code = for_each(paths or cache.listdir(), session, lambda path: found.append(_usage(cache, path)))
    if session.as_json:
        echo_json([{"path": path, **asdict(usage)} for path, usage in found])
    else:
        echo_table(
            ("objects", "size", "cached", "share", "path"),
            [_row(path, usage, human) for path, usage in found],
        )
    return code


def _usage(cache: Cache, path: str) -> tuple[str, Usage]:
    return path, cache.usage(path)


def _row(path: str, usage: Usage, human: bool) -> tuple[str, ...]:
    sizes = [size_text(size) if human else str(size) for size in (usage.bytes, usage.cached_bytes)]
    return str(usage.objects), *sizes, share_text(usage.cached_bytes, usage.bytes), path
