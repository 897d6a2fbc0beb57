"""``check``."""

from __future__ import annotations

from dataclasses import asdict

import click

from forebay.cli.app import DONE, FAILED
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, printable, size_text


@click.command()
@common_options
@click.option("--repair", is_flag=True, help="Drop what is wrong; it is fetched again when it is read.")
@pass_session
def check(session: Session, repair: bool) -> int:
    """Verify the cache: its index, its segments, and the checksum of every cached byte.

    Ends with 1 if it is damaged. A damaged catalog, which holds what is attached, is named with its backup;
    see "Restoring the catalog" in docs/operations.md.
    """
    with session.open_cache() as cache:
        report = cache.check(repair)
    if session.as_json:
        echo_json({**asdict(report), "ok": report.ok})
    else:
        verified = size_text(report.bytes_verified)
        click.echo(f"{report.slots} blocks in {report.segments} segments, {verified} verified")
        bad = report.bad_pages + report.bad_slots + report.bad_records + report.bad_checksums
        if bad:
            click.echo(f"damaged: {bad}, repaired: {report.repaired}, first: {printable(report.first)}")
    if not report.ok and not session.as_json:
        click.echo("forebay: the cache is damaged; `forebay check --repair` drops what is wrong", err=True)
    return DONE if report.ok else FAILED
