"""``locate``."""

from __future__ import annotations

from typing import Any

import click

from forebay.cli.each import for_each
from forebay.cli.kinds import CACHE_PATH
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table, share_text


@click.command()
@common_options
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=CACHE_PATH)
@pass_session
def locate(session: Session, paths: tuple[str, ...]) -> int:
    """Say which hosts have how much of each PATH and of all below it, the most first.

    With replicas the shares are more than 100 % together.
    """
    found: list[dict[str, Any]] = []
    with session.open_cache() as cache:

        def locate_one(path: str) -> None:
            found.append({"path": path, "hosts": _by_share(cache.locate(path))})

        code = for_each(paths, session, locate_one)
    if session.as_json:
        echo_json(found)
    else:
        rows = [
            (each["path"], host, share_text(share, 1))
            for each in found
            for host, share in each["hosts"].items()
        ]
        echo_table(("path", "host", "share"), rows)
    return code


def _by_share(shares: dict[str, float]) -> dict[str, float]:
    return dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))
