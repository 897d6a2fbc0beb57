"""``load``, ``resume`` and ``cancel``; schedules.py has what ``load`` does with those."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final

import click

from forebay.cache import Cache
from forebay.cache.loads.load import LoadJob, LoadResult
from forebay.cache.schedules.schedule import When
from forebay.cli.app import DONE, FAILED
from forebay.cli.background import own_command, start_detached
from forebay.cli.interrupt import undone_if_interrupted
from forebay.cli.jobs import echo_json_with_results
from forebay.cli.kinds import CACHE_PATH, SIZE
from forebay.cli.load_progress import follow, outcome_text, state_text
from forebay.cli.schedules import schedule, watch_schedules, when_options
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, printable

_TOLD_MAX: Final = 100
_START_TIMEOUT_S: Final = 30.0
_START_STEP_S: Final = 0.05


@click.command()
@common_options
@click.argument("target", type=CACHE_PATH, required=False)
@click.option(
    "--files-from",
    metavar="FILE",
    help="Load what this list names, a line each, relative to TARGET; - for standard input, or a URL.",
)
@click.option("--glob", metavar="G", help="Load what matches, relative to TARGET; ** is any depth.")
@click.option("--metadata-only", is_flag=True, help="List and remember, and fetch nothing.")
@click.option("--dry-run", is_flag=True, help="Count what would be fetched, and touch nothing.")
@click.option("--verify", is_flag=True, help="Read every block back against its checksum.")
@click.option("--rate-limit", type=SIZE, metavar="SIZE", help="Bytes a second at most, as 100MB.")
@click.option("--manifest", metavar="V", help="When it is done, make it the version V and put that in use.")
@click.option("--order", metavar="V", help="Load what the version V lists, in its order of access.")
@click.option(
    "--replicas", type=click.IntRange(1), metavar="N", help="Have N members hold TARGET, and what follows."
)
@click.option("--background", is_flag=True, help="Go on in a process of its own; see `forebay jobs`.")
@when_options
@click.option("--watch", is_flag=True, help="Run what is scheduled, until a signal ends it.")
@pass_session
def load(
    session: Session,
    target: str | None,
    files_from: str | None,
    glob: str | None,
    metadata_only: bool,
    dry_run: bool,
    verify: bool,
    rate_limit: int | None,
    manifest: str | None,
    order: str | None,
    replicas: int | None,
    background: bool,
    when: When | None,
    watch: bool,
) -> int:
    """Bring TARGET, a dataset or a path in one, into the cache, ahead of whoever will read it.

    Ends with 1 unless every file is cached in the end, and says which are not. What is cached already is
    skipped. Interrupted, it is gone on with by `forebay resume`. With --at, --cron or --after it is only
    scheduled; where `forebay load --watch` goes on it is run.
    """
    options: dict[str, Any] = {
        "files": sys.stdin.buffer if files_from == "-" else files_from,
        "glob": glob,
        "metadata_only": metadata_only,
        "dry_run": dry_run,
        "verify": verify,
        "rate_limit": rate_limit,
        "manifest": manifest,
        "order": order,
    }
    if watch:
        if target is not None or background or when is not None or replicas or any(options.values()):
            raise click.UsageError("--watch runs what is scheduled, and takes nothing else")
        return watch_schedules(session)
    if target is None:
        raise click.UsageError("Missing argument 'TARGET'.")
    if background and (dry_run or when is not None):
        raise click.UsageError("--background and --dry-run, --at, --cron or --after exclude each other")
    if manifest is not None and dry_run:
        raise click.UsageError("--manifest and --dry-run exclude each other")
    if order is not None and files_from is not None:
        raise click.UsageError("--order and --files-from exclude each other")
    if replicas is not None and (dry_run or when is not None):
        raise click.UsageError("--replicas and --dry-run, --at, --cron or --after exclude each other")
    if when is not None:
        return schedule(session, target, when, options)
    with session.open_cache() as cache:
        job = cache.load(target, **options, replicas=replicas, start=not background)
        return _leave_running(session, cache, job) if background else see_through(session, job)


@click.command()
@common_options
@click.argument("job_id", metavar="ID")
@click.option("--background", is_flag=True, help="Go on in a process of its own.")
@pass_session
def resume(session: Session, job_id: str, background: bool) -> int:
    """Go on with the load ID; what is cached is skipped.

    A load that ended without all files cached is tried again; one that runs elsewhere is followed.
    """
    with session.open_cache() as cache:
        if background:
            return _leave_running(session, cache, cache.job(job_id))
        return see_through(session, cache.resume(job_id))


@click.command()
@common_options
@click.argument("job_id", metavar="ID")
@pass_session
def cancel(session: Session, job_id: str) -> int:
    """Stop the load ID for good, whoever runs it. What it has cached stays."""
    with session.open_cache() as cache:
        job = cache.job(job_id)
        job.cancel()
        result = job.wait()
    if session.as_json:
        echo_json(result.to_json())
    else:
        click.echo(f"{result.id}: {state_text(result)}")
    return DONE if result.state == "cancelled" else FAILED


def see_through(session: Session, job: LoadJob) -> int:
    """Show how far a load is until it ends, and tell of its end."""

    def hint() -> None:
        if job.is_resumable and not job.request.dry_run:
            click.echo(f"\nforebay: to go on: forebay resume {job.id}", err=True)

    with undone_if_interrupted(hint):
        result = follow(job, quiet=session.as_json)
    if session.as_json:
        echo_json_with_results(job)
    else:
        _tell(result, job)
    return DONE if result.ok else FAILED


def _tell(result: LoadResult, job: LoadJob) -> None:
    """Say on standard output how it ended, and on standard error what is not cached, file by file."""
    told = 0
    for told, file in enumerate(job.results(), 1):
        if told > _TOLD_MAX:
            more = f"; see `forebay jobs show {job.id}`" if job.is_resumable else ""
            click.echo(f"forebay: there are more{more}", err=True)
            break
        line = "" if file.line is None else f" (line {file.line})"
        click.echo(f"forebay: {printable(file.path)}{line}: {printable(file.error or '')}", err=True)
    click.echo(outcome_text(result, job.request))
    if not result.ok:
        click.echo(f"forebay: {printable(state_text(result))}", err=True)


def _leave_running(session: Session, cache: Cache, job: LoadJob) -> int:
    """Run the job in a process of its own, and see it begin."""
    log = job.log_path
    pid = start_detached([*own_command(session, cache.path), "resume", job.id], log)
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while (state := job.progress().state) in ("queued", "interrupted"):
        if os.waitpid(pid, os.WNOHANG)[0] or time.monotonic() > deadline_s:
            raise OSError(f"job {job.id} was not begun; see {log}")
        time.sleep(_START_STEP_S)
    if session.as_json:
        echo_json({"id": job.id, "state": state, "log": log})
    else:
        click.echo(job.id)
    return DONE
