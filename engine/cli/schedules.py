"""``schedules``, and what ``load`` does with schedules: making one, and watching them."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from forebay.cache import Cache
from forebay.cache.schedules.schedule import Schedule, When
from forebay.cache.schedules.times import zone_of
from forebay.cache.schedules.watch import WatchEvent
from forebay.cli.interrupt import asked_to_end_if_interrupted
from forebay.cli.kinds import MOMENT
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table, printable, time_text
from forebay.clock import NS_PER_S
from forebay.errors import ConfigError

_WHEN_OPTIONS = (
    click.option("--at", type=MOMENT, metavar="T", help="Schedule it for a time, as 2026-12-01T03:00."),
    click.option("--cron", metavar="EXPR", help="Schedule it by a cron expression, as '0 3 * * *'."),
    click.option("--after", metavar="ID", help="Schedule it for when that job or schedule has ended done."),
    click.option("--any-end", is_flag=True, help="With --after: however that has ended."),
    click.option("--timezone", metavar="Z", help="The time zone of --at and --cron; else the machine's."),
)


def when_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options that say when, and hand them to it as one When, or None."""

    @functools.wraps(command)
    def with_when(*arguments: Any, **options: Any) -> int:
        when = When(**{name: options.pop(name) for name in asdict(When())})
        return command(*arguments, **options, when=None if when == When() else when)

    decorated = with_when
    for option in reversed(_WHEN_OPTIONS):
        decorated = option(decorated)
    return decorated


def schedule(session: Session, target: str, when: When, options: dict[str, Any]) -> int:
    """Schedule a load, and print its id."""
    with session.open_cache() as cache:
        made = cache.schedule(target, **asdict(when), **options)
        if session.as_json:
            echo_json(made.to_json())
        else:
            click.echo(made.id)
            _hint_at_watching(cache)
    return 0


def watch_schedules(session: Session) -> int:
    """Run what is scheduled and tell of it, a line each, until a signal asks for the end."""
    ending = threading.Event()
    with asked_to_end_if_interrupted(ending.set), session.open_cache() as cache:
        cache.watcher(lambda event: _tell(event, as_json=session.as_json)).run(ending)
    return 0


@click.group(invoke_without_command=True)
@common_options
@click.pass_context
def schedules(context: click.Context) -> None:
    """List the schedules of loads, with the next run of each and how the last one ended."""
    if context.invoked_subcommand is None:
        _list(context.ensure_object(Session))


@schedules.command("list")
@common_options
@pass_session
def list_(session: Session) -> None:
    """List the schedules of loads, with the next run of each and how the last one ended."""
    _list(session)


@schedules.command()
@common_options
@click.argument("schedule_id", metavar="ID")
@pass_session
def remove(session: Session, schedule_id: str) -> None:
    """Remove the schedule ID. A load that it has begun goes on, and what is cached stays."""
    with session.open_cache() as cache:
        cache.unschedule(schedule_id)
    if session.as_json:
        echo_json({"removed": schedule_id})
    else:
        click.echo(f"removed {schedule_id}")


def _list(session: Session) -> None:
    with session.open_cache() as cache:
        found = cache.schedules()
        if session.as_json:
            echo_json([one.to_json() for one in found])
            return
        headings = ("id", "state", "target", "when", "next", "last", "runs")
        echo_table(headings, [_row(one) for one in found])
        if any(one.state != "over" for one in found):
            _hint_at_watching(cache)


def _hint_at_watching(cache: Cache) -> None:
    if not cache.is_watched():
        click.echo("forebay: nobody watches; what is due is run once `forebay load --watch` is", err=True)


def _row(one: Schedule) -> tuple[str, ...]:
    return (
        one.id,
        one.state,
        one.request.target,
        _when_text(one),
        _next_text(one),
        _last_text(one),
        str(one.runs),
    )


def _when_text(one: Schedule) -> str:
    if one.after is not None:
        return f"after {one.after}{', any end' if one.any_end else ''}"
    return f"cron {one.cron} {one.timezone}" if one.at is None else "once"


def _next_text(one: Schedule) -> str:
    if one.state == "running":
        return f"runs as {one.job}"
    return one.reason if one.due is None else _local_text(one.due, one.timezone)


def _local_text(moment: float, timezone: str | None) -> str:
    """Return a time in a schedule's own zone, with its offset: that is the clock that it goes by."""
    try:
        zone = UTC if timezone is None else zone_of(timezone)
    except ConfigError:  # the zone is known where it was scheduled, and not here
        zone = UTC
    return datetime.fromtimestamp(moment, zone).isoformat(sep=" ", timespec="seconds")


def _last_text(one: Schedule) -> str:
    if one.last is None:
        return "-"
    return f"{one.last.state}: {one.last.reason}" if one.last.reason else one.last.state


def _tell(event: WatchEvent, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(event.to_json()))
        return
    reason = f": {event.reason}" if event.reason else ""
    words = event.event if event.state is None else f"ended {event.state}{reason}"
    line = f"{event.schedule} {event.target}: {words}{f' ({event.job})' if event.job else ''}"
    click.echo(f"{time_text(int(event.at * NS_PER_S))} {printable(line)}")
