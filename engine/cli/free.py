"""``free`` and ``sync``."""

from __future__ import annotations

from typing import Any

import click

from forebay.cli.each import for_each
from forebay.cli.kinds import CACHE_PATH
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, printable


@click.command()
@common_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=CACHE_PATH)
@click.option("--data", "what", flag_value="data", default="data", help="Cached bytes. [default]")
@click.option("--metadata", "what", flag_value="metadata", help="What is known of objects.")
@click.option("--all", "what", flag_value="all", help="Both.")
@pass_session
def free(session: Session, paths: tuple[str, ...], what: str) -> int:
    """Drop what is cached of each PATH and all below it. The under storage is not touched.

    Readers keep the views that they have.
    """
    freed: list[str] = []
    data, metadata = what != "metadata", what != "data"

    with session.open_cache() as cache:

        def free_one(path: str) -> None:
            cache.free(path, data=data, metadata=metadata)
            freed.append(path)

        code = for_each(paths, session, free_one)
    if session.as_json:
        echo_json([{"path": path, "data": data, "metadata": metadata} for path in freed])
    else:
        for path in freed:
            click.echo(f"freed {printable(path)}")
    return code


@click.command()
@common_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=CACHE_PATH)
@pass_session
def sync(session: Session, paths: tuple[str, ...]) -> int:
    """Ask the under storage what each PATH, and all that is known below it, is now.

    Old versions' bytes are reclaimed; new ones are fetched when they are read.
    """
    found: list[dict[str, Any]] = []
    with session.open_cache() as cache:

        def sync_one(path: str) -> None:
            report = cache.sync(path)
            found.append(
                {"path": path, "added": report.added, "changed": report.changed, "removed": report.removed}
            )

        code = for_each(paths, session, sync_one)
    if session.as_json:
        echo_json(found)
    else:
        for each in found:
            counts = f"{each['added']} new, {each['changed']} changed, {each['removed']} gone"
            click.echo(f"{printable(each['path'])}: {counts}")
    return code
