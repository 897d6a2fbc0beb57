"""``jobs`` and ``jobs show``."""

from __future__ import annotations

import json

import click

from forebay.cache.loads.load import LoadJob
from forebay.cli.load_progress import progress_text, state_text
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import JsonArray, echo_json, echo_table, printable, size_text, time_text
from forebay.clock import NS_PER_S


@click.group(invoke_without_command=True)
@common_options
@click.pass_context
def jobs(context: click.Context) -> None:
    """List the loads that are running, that were interrupted, and the last that have ended."""
    if context.invoked_subcommand is None:
        _list(context.ensure_object(Session))


def _list(session: Session) -> None:
    with session.open_cache() as cache:
        found = cache.jobs()
        if session.as_json:
            echo_json([job.to_json() for job in found])
            return
        echo_table(("id", "state", "target", "files", "bytes", "made"), [_row(job) for job in found])


@jobs.command()
@common_options
@click.argument("job_id", metavar="ID")
@pass_session
def show(session: Session, job_id: str) -> None:
    """Describe the load ID: what was asked for, how far it is, and each file that is not cached."""
    with session.open_cache() as cache:
        job = cache.job(job_id)
        if session.as_json:
            echo_json_with_results(job)
        else:
            _show(job)


def echo_json_with_results(job: LoadJob) -> None:
    """Print a job as JSON with what is not cached under ``results``, item by item: there may be many."""
    head = json.dumps(job.to_json(), indent=2)
    click.echo(head.removesuffix("\n}") + ',\n  "results": ', nl=False)
    array = JsonArray()
    for result in job.results():
        array.add(result.to_json())
    array.end()
    click.echo("}")


def _show(job: LoadJob) -> None:
    result, request = job.result(), job.request
    asked = [
        words
        for words, is_asked in (
            (f"glob {request.glob}", request.glob is not None),
            ("from a file list", request.listed and request.order is None),
            ("metadata only", request.metadata_only),
            ("verified", request.verify),
            (f"for manifest {request.manifest}", request.manifest is not None),
            (f"in the order of {request.order}", request.order is not None),
            (f"at most {size_text(request.rate_limit or 0)}/s", request.rate_limit is not None),
        )
        if is_asked
    ]
    click.echo(f"id       {job.id}")
    click.echo(f"target   {printable(request.target)}")
    if asked:
        click.echo(f"asked    {printable(', '.join(asked))}")
    click.echo(f"made     {time_text(int(job.created * NS_PER_S))}")
    click.echo(f"state    {printable(state_text(result))}")
    click.echo(f"progress {progress_text(result.progress)}")
    for file in job.results():
        line = "" if file.line is None else f" (line {file.line})"
        click.echo(f"{file.outcome} {printable(file.path)}{line}: {printable(file.error or '')}")


def _row(job: LoadJob) -> tuple[str, ...]:
    result = job.result()
    figures = result.progress
    total = "?" if figures.files_total is None else str(figures.files_total)
    files = f"{figures.files_done + figures.files_skipped}/{total}"
    size = size_text(figures.bytes_done + figures.bytes_skipped)
    return job.id, result.state, job.request.target, files, size, time_text(int(job.created * NS_PER_S))
