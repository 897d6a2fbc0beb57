"""``record``, and ``trace`` with what is below it: what was read, in order."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from typing import Any

import click

from forebay.cache import Trace
from forebay.cli.app import DONE
from forebay.cli.interrupt import undone_if_interrupted
from forebay.cli.kinds import SIZE
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table, json_array, printable, size_text, time_text
from forebay.clock import NS_PER_S

_MAX_BYTES = "1GiB"


@click.command()
@common_options
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--no-manifests", is_flag=True, help="Leave it a trace: make no manifests of it.")
@click.option(
    "--max-bytes",
    type=SIZE,
    default=_MAX_BYTES,
    metavar="SIZE",
    help="What each process may write, 1GiB by default.",
)
@pass_session
def record(session: Session, name: str, command: tuple[str, ...], no_manifests: bool, max_bytes: int) -> int:
    """Run COMMAND, recording what it reads through this cache as the trace NAME; ends as COMMAND does.

    Every process of it that opens the cache is recorded. Afterwards each dataset that was read has a manifest
    NAME, in the order of access. Write -- before a COMMAND that has options.
    """
    with session.open_cache() as cache:
        with cache.record(name, manifests=False, max_bytes=max_bytes) as trace:
            code = _run(command, {"FOREBAY_CACHE_DIR": cache.path, "FOREBAY_RECORD": name})
        made = [] if no_manifests or code != DONE else cache.create_manifests(name)
        status = trace.status()
    if session.as_json:
        told = [each.to_json() for each in made]
        echo_json({**status.to_json(), "exit_code": code, "manifests": told})
    else:
        click.echo(f"trace {name}: {status.state}, processes: {status.processes}", err=True)
        for each in made:
            click.echo(f"manifest {each.dataset}@{each.version}: {each.objects} objects in order", err=True)
    return code


def _run(command: tuple[str, ...], environ: dict[str, str]) -> int:
    """Run a command to its end and return its exit code, as a shell tells it."""
    try:
        process = subprocess.Popen(command, env=os.environ | environ)
    except OSError as error:
        raise OSError(error.errno, error.strerror, command[0]) from error
    with undone_if_interrupted(process.terminate):
        code = process.wait()
    return code if code >= 0 else 128 - code


@click.group()
@common_options
def trace() -> None:
    """List and show traces: what was read through the cache, in order."""


@trace.command("list")
@common_options
@pass_session
def list_(session: Session) -> None:
    """List the traces of the cache."""
    with session.open_cache() as cache:
        found = [trace.status() for trace in cache.traces()]
    if session.as_json:
        echo_json([each.to_json() for each in found])
        return
    rows = [
        (
            each.name,
            each.state,
            str(each.processes),
            size_text(each.file_bytes),
            time_text(int(each.created * NS_PER_S)),
        )
        for each in found
    ]
    echo_table(("trace", "state", "processes", "size", "made"), rows)


@trace.command()
@common_options
@click.argument("name")
@click.option("--accesses", is_flag=True, help="Print each access: seconds, offset, length, size, path.")
@pass_session
def show(session: Session, name: str, accesses: bool) -> None:
    """Describe the trace NAME: what it is made of, how much was read, of which datasets."""
    with session.open_cache() as cache:
        found = cache.trace(name)
        if accesses:
            _print_accesses(session, found)
            return
        summary = _summary(found)
    if session.as_json:
        echo_json(summary)
        return
    click.echo(f"trace     {name}")
    click.echo(f"state     {summary['state']}")
    click.echo(f"made      {time_text(int(summary['created'] * NS_PER_S))}")
    click.echo(f"processes {summary['processes']}")
    click.echo(f"accesses  {summary['accesses']} in {summary['seconds']:.1f} s")
    click.echo(f"read      {size_text(summary['read_bytes'])} of {', '.join(summary['datasets']) or '-'}")


@trace.command()
@common_options
@click.argument("name")
@pass_session
def manifests(session: Session, name: str) -> None:
    """Make manifests of the trace NAME, for one that ended without: a manifest NAME for each dataset."""
    with session.open_cache() as cache:
        made = cache.create_manifests(name)
    if session.as_json:
        echo_json([each.to_json() for each in made])
        return
    for each in made:
        click.echo(f"manifest {each.dataset}@{each.version}: {each.objects} objects in order")


@trace.command()
@common_options
@click.argument("name")
@pass_session
def delete(session: Session, name: str) -> None:
    """Delete the trace NAME; manifests that were made of it stay."""
    with session.open_cache() as cache:
        cache.delete_trace(name)
    if session.as_json:
        echo_json({"deleted": name})
    else:
        click.echo(f"deleted {name}")


@dataclass
class _Totals:
    accesses: int = 0
    read_bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0
    datasets: set[str] = field(default_factory=set)


def _summary(found: Trace) -> dict[str, Any]:
    totals = _Totals()
    for access in found.accesses():
        totals.first_ns = totals.first_ns or access.time_ns
        totals.last_ns = access.time_ns
        totals.accesses += 1
        totals.read_bytes += access.length
        totals.datasets.add(access.path.partition("/")[0])
    return found.status().to_json() | {
        "accesses": totals.accesses,
        "read_bytes": totals.read_bytes,
        "seconds": (totals.last_ns - totals.first_ns) / NS_PER_S,
        "datasets": sorted(totals.datasets),
    }


def _print_accesses(session: Session, found: Trace) -> None:
    first_ns = 0
    if session.as_json:
        with json_array() as array:
            for access in found.accesses():
                array.add(access._asdict())
        return
    for access in found.accesses():
        first_ns = first_ns or access.time_ns
        seconds = (access.time_ns - first_ns) / NS_PER_S
        figures = f"{seconds:.6f}\t{access.offset}\t{access.length}\t{access.size}"
        click.echo(f"{figures}\t{printable(access.path)}")
