"""``status``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table, printable, size_text
from forebay.metrics import render_prometheus


@click.command()
@common_options
@click.option("--prometheus", is_flag=True, help="Print Prometheus's text format.")
@pass_session
def status(session: Session, prometheus: bool) -> None:
    """Show tiers, hits and misses, and datasets, for all processes of this host."""
    if prometheus and session.as_json:
        raise click.UsageError("--json and --prometheus exclude each other")
    with session.open_cache() as cache:
        found = cache.status()
    if session.as_json:
        echo_json(found)
    elif prometheus:
        click.echo(render_prometheus(found), nl=False)
    else:
        _show(found)


def _show(status: Mapping[str, Any]) -> None:
    index, rows = status["index"], status["rows"]
    rebuilding = ", the index is being rebuilt" if index["rebuilding"] else ""
    click.echo(f"cache     {printable(status['path'])}")
    click.echo(f"live file {printable(index['live_path'])}")
    click.echo(f"cached    {status['blocks']} blocks, {size_text(status['committed_bytes'])}{rebuilding}")
    click.echo(f"reads     {_reads_text(status['counters'])}")
    click.echo(f"processes {rows['used']} of at most {rows['max']}")
    echo_table(
        ("tier", "medium", "quota", "effective", "used", "held", "free", "pinned", "state"),
        [_tier_row(tier) for tier in status["tiers"]],
    )
    echo_table(("dataset", "uri"), [(dataset["name"], dataset["uri"]) for dataset in status["attached"]])
    holders = [holder for holder in status["holders"] if holder["leases"] or holder["held_bytes"]]
    if holders:
        echo_table(
            ("holder", "pid", "leases", "held"),
            [
                (holder["name"], str(holder["pid"]), str(holder["leases"]), size_text(holder["held_bytes"]))
                for holder in holders
            ],
        )


def _reads_text(counters: Mapping[str, int]) -> str:
    hits = sum(counters[f"hits_{medium}"] for medium in ("mem", "ssd", "hdd"))
    misses = sum(value for name, value in counters.items() if name.startswith("misses_"))
    ratio = f"{100 * hits / (hits + misses):.1f} %" if hits + misses else "none yet"
    return f"{hits} hits, {misses} misses (hit ratio {ratio})"


def _tier_row(tier: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("quota_bytes", "effective_bytes", "used_bytes", "held_bytes", "free_bytes", "pinned_bytes")
    state = f"failed: {tier['cause']}" if tier["failed"] else "ok"
    return (tier["path"], tier["medium"], *(size_text(tier[name]) for name in names), state)
