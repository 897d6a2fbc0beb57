"""What mounts are asked for, as ``top`` and ``status`` show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from forebay.cli.text import printable

MOUNT_HEADINGS: Final = ("mount", "dataset", "pid", "mode", "requests", "errors")
RATE_HEADINGS: Final = ("mount", "operation", "a second", "mean", "p99", "errors a second")

_US_PER_MS: Final = 1_000


@dataclass(frozen=True)
class OperationRates:
    """One operation of one mount in an interval; p99_us is of all since the mount was made.

    mean_us: None where there was none.
    """

    mountpoint: str
    operation: str
    per_s: float
    errors_per_s: float
    mean_us: float | None
    p99_us: float


def mount_rates(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], interval_s: float
) -> list[OperationRates]:
    """Compare two looks at the mounts; interval_s, above 0, lies between them.

    A mount's own figures are a second old at most.
    """
    earlier = {(record["mountpoint"], record["pid"]): record["operations"] for record in before}
    rates = []
    for record in after:
        known = earlier.get((record["mountpoint"], record["pid"]), {})
        for operation, now in record["operations"].items():
            past = known.get(operation, {"count": 0, "errors": 0, "mean_us": 0.0})
            count = now["count"] - past["count"]
            took_us = now["count"] * now["mean_us"] - past["count"] * past["mean_us"]
            rates.append(
                OperationRates(
                    mountpoint=record["mountpoint"],
                    operation=operation,
                    per_s=count / interval_s,
                    errors_per_s=(now["errors"] - past["errors"]) / interval_s,
                    mean_us=took_us / count if count else None,
                    p99_us=now["p99_us"],
                )
            )
    return rates


def rate_rows(rates: Sequence[OperationRates]) -> Iterator[tuple[str, ...]]:
    """Yield the rates as people read them."""
    for one in rates:
        yield (
            printable(one.mountpoint),
            one.operation,
            f"{one.per_s:.1f}",
            "-" if one.mean_us is None else _time_text(one.mean_us),
            _time_text(one.p99_us),
            f"{one.errors_per_s:.1f}",
        )


def mount_rows(mounts: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the mounts as people read them."""
    for record in mounts:
        operations = record["operations"].values()
        yield (
            printable(record["mountpoint"]),
            record["dataset"],
            str(record["pid"]),
            "read-only" if record["read_only"] else "read-write",
            str(sum(one["count"] for one in operations)),
            str(sum(one["errors"] for one in operations)),
        )


def _time_text(time_us: float) -> str:
    return f"{time_us:.0f} us" if time_us < _US_PER_MS else f"{time_us / _US_PER_MS:.1f} ms"
