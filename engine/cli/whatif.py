"""``whatif``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from forebay.cache import RETENTIONS, Trace
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table, printable, share_text, size_text
from forebay.whatif import WhatIf, plot, what_if


@click.command()
@common_options
@click.argument("trace")
@click.option(
    "--sizes",
    metavar="LIST",
    help="Sizes of the cache with commas between: 10GiB, or 40% of what is read.",
)
@click.option(
    "--retention",
    "retentions",
    multiple=True,
    type=click.Choice(RETENTIONS),
    help="Only this retention; may be given several times.",
)
@click.option("--plot", "picture", type=click.Path(dir_okay=False), metavar="FILE", help="Draw it into FILE.")
@pass_session
def whatif(
    session: Session, trace: str, sizes: str | None, retentions: tuple[str, ...], picture: str | None
) -> None:
    """Show what hit ratio TRACE would have in caches of other sizes, for each retention.

    TRACE is the name of one of this cache, or a folder that holds one (with a slash in it).
    """
    chosen = None if sizes is None else [size for size in sizes.split(",") if size.strip()]
    if os.sep in trace:
        found = what_if(_trace_in(trace), chosen, retentions or RETENTIONS)
    else:
        with session.open_cache() as cache:
            found = what_if(cache.trace(trace), chosen, retentions or RETENTIONS)
    if picture is not None:
        plot(found, picture)
    if session.as_json:
        echo_json(found.to_json())
    else:
        _tell(found)


def _trace_in(folder: str) -> Trace:
    """Return the trace in a folder. Raises: OSError, ValueError."""
    return Trace(Path(folder))


def _tell(found: WhatIf) -> None:
    click.echo(
        f"{printable(found.trace)}: {found.reads} blocks read, {size_text(found.read_bytes)}; "
        f"{size_text(found.distinct_bytes)} without those read again",
        err=True,
    )
    if found.rate < 1:
        click.echo(f"estimated from {share_text(found.rate, 1)} of the blocks", err=True)
    retentions = list(dict.fromkeys(estimate.retention for estimate in found.estimates))
    rows = []
    for number, size in enumerate(found.sizes):
        ratios = [share_text(found.of(retention)[number].hit_ratio, 1) for retention in retentions]
        rows.append((size_text(size), share_text(size, found.distinct_bytes), *ratios))
    echo_table(("size", "of all", *retentions), rows)
