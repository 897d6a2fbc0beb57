"""``top``: what goes on, as rates between two looks at the counters."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from forebay.cache import Cache
from forebay.cli.interrupt import undone_if_interrupted
from forebay.cli.mount_rates import RATE_HEADINGS, OperationRates, mount_rates, rate_rows
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.status import hits_by_medium, misses_by_cause, status_lines, status_of
from forebay.cli.text import columns, share_text, size_text

_INTERVAL_MIN_S: Final = 0.1
_DATASET_HEADINGS: Final = ("dataset, a second", "hits", "misses", "hit ratio", "requests", "read")


@dataclass(frozen=True)
class Rates:
    """What happened in one interval: numbers a second, and the share of look-ups that were hits."""

    interval_s: float
    hit_ratio: float | None
    hits_per_s: float
    misses_per_s: float
    hit_bytes_per_s: float
    source_requests_per_s: float
    source_bytes_per_s: float
    source_errors_per_s: float
    admitted_bytes_per_s: float
    evicted_bytes_per_s: float

    @classmethod
    def between(cls, before: Mapping[str, int], after: Mapping[str, int], interval_s: float) -> Rates:
        """Compare two states of the counters; interval_s, above 0, lies between them."""
        gone = {name: after[name] - before.get(name, 0) for name in after}
        hits, misses = sum(hits_by_medium(gone).values()), sum(misses_by_cause(gone).values())
        return cls(
            interval_s=interval_s,
            hit_ratio=hits / (hits + misses) if hits + misses else None,
            hits_per_s=hits / interval_s,
            misses_per_s=misses / interval_s,
            hit_bytes_per_s=sum(hits_by_medium(gone, "hit_bytes").values()) / interval_s,
            source_requests_per_s=gone["source_requests"] / interval_s,
            source_bytes_per_s=gone["source_bytes"] / interval_s,
            source_errors_per_s=gone["source_errors"] / interval_s,
            admitted_bytes_per_s=gone["admitted_bytes"] / interval_s,
            evicted_bytes_per_s=gone["evicted_bytes"] / interval_s,
        )


@dataclass(frozen=True)
class Look:
    """What happened since the look before, of everything and of each dataset, and what there is now."""

    rates: Rates
    datasets: Mapping[str, Rates]
    mounts: list[OperationRates]
    status: Mapping[str, Any]

    @classmethod
    def between(cls, before: Mapping[str, Any], after: Mapping[str, Any], interval_s: float) -> Look:
        """Compare two statuses; interval_s, above 0, lies between them."""
        datasets = {}
        for number, dataset in after["datasets"].items():
            # Without counters is what has no account of its own; without a name what is detached.
            counters = dataset["counters"]
            if counters and (dataset["name"] or any(counters.values())):
                earlier = before["datasets"].get(number, {}).get("counters", {})
                name = dataset["name"] or f"#{number}"
                datasets[name] = Rates.between(earlier, counters, interval_s)
        return cls(
            Rates.between(before["counters"], after["counters"], interval_s),
            datasets,
            mount_rates(before["mounts"], after["mounts"], interval_s),
            after,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the rates, those of each dataset, and the accounts, as plain data."""
        return {
            **asdict(self.rates),
            "datasets": {name: asdict(rates) for name, rates in self.datasets.items()},
            "accounts": self.status["accounts"],
            "mounts": [asdict(rates) for rates in self.mounts],
        }


@click.command()
@common_options
@click.option(
    "--interval",
    type=click.FloatRange(min=_INTERVAL_MIN_S),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Show one interval and end.")
@pass_session
def top(session: Session, interval: float, once: bool) -> None:
    """Show hits, misses, bytes and requests a second, live, for all processes of this host.

    On a terminal a screen that is drawn anew; elsewhere, and with --json, a line an interval. An interrupt
    ends it.
    """
    with session.open_cache() as cache:
        looks = _looks(cache, interval)
        if session.as_json:
            for look in looks:
                click.echo(json.dumps(look.to_json()))
                if once:
                    return
        elif once:
            click.echo("\n".join(_screen(next(looks))))
        elif sys.stdout.isatty():
            _show_live(cache, looks)
        else:
            for look in looks:
                click.echo(_line(look.rates))


def _looks(cache: Cache, interval_s: float) -> Iterator[Look]:
    """Yield looks, an interval apart."""
    before, looked_s = status_of(cache), time.monotonic()
    while True:
        time.sleep(interval_s)
        after, now_s = status_of(cache), time.monotonic()
        yield Look.between(before, after, now_s - looked_s)
        before, looked_s = after, now_s


def _show_live(cache: Cache, looks: Iterator[Look]) -> None:
    from rich.live import Live
    from rich.text import Text

    # On a screen of its own, so that the terminal is afterwards as it was.
    live = Live(Text("\n".join(status_lines(status_of(cache)))), screen=True, auto_refresh=False)
    with undone_if_interrupted(live.stop), live:
        for look in looks:
            live.update(Text("\n".join(_screen(look))), refresh=True)


def _screen(look: Look) -> list[str]:
    rates = look.rates
    lookups = rates.hits_per_s + rates.misses_per_s
    return [
        f"in {rates.interval_s:.1f} s     a second",
        f"hits      {rates.hits_per_s:10.1f}  {size_text(rates.hit_bytes_per_s)}",
        f"misses    {rates.misses_per_s:10.1f}  hit ratio {share_text(rates.hits_per_s, lookups)}",
        f"source    {rates.source_requests_per_s:10.1f}  {size_text(rates.source_bytes_per_s)}"
        f"  errors {rates.source_errors_per_s:.1f}",
        f"admitted  {'':10}  {size_text(rates.admitted_bytes_per_s)}",
        f"evicted   {'':10}  {size_text(rates.evicted_bytes_per_s)}",
        "",
        *columns(_DATASET_HEADINGS, _dataset_rows(look)),
        *(["", *columns(RATE_HEADINGS, rate_rows(look.mounts))] if look.mounts else []),
        "",
        *status_lines(look.status),
    ]


def _dataset_rows(look: Look) -> Iterator[tuple[str, ...]]:
    for name, rates in look.datasets.items():
        yield (
            name,
            f"{rates.hits_per_s:.1f}",
            f"{rates.misses_per_s:.1f}",
            share_text(rates.hits_per_s, rates.hits_per_s + rates.misses_per_s),
            f"{rates.source_requests_per_s:.1f}",
            size_text(rates.source_bytes_per_s),
        )


def _line(rates: Rates) -> str:
    return (
        f"{rates.hits_per_s:.1f} hits/s, {rates.misses_per_s:.1f} misses/s, "
        f"{size_text(rates.hit_bytes_per_s)}/s from tiers, {rates.source_requests_per_s:.1f} requests/s, "
        f"{size_text(rates.source_bytes_per_s)}/s from under storages"
    )
