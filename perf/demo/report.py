"""What the demo ends with: a table and a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from perf import plots
from perf.demo.passes import Pass

MB = 1_000_000
HEADINGS = ("samples\n/s", "x S3", "MB/s", "S3 re-\nquests", "S3\nMB", "hit\nratio", "MB\nsaved", "s")


def print_passes(console: Console, passes: Sequence[Pass]) -> None:
    """Print a row a pass, each speed beside its ratio to the first pass."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # 80 columns are enough
    table.add_column("pass", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for each in passes:
        table.add_row(
            each.name,
            f"{each.samples_per_s:,.0f}",
            f"{each.samples_per_s / passes[0].samples_per_s:.1f}",
            f"{each.bytes_per_s / MB:,.0f}",
            f"{each.s3_requests:,}",
            f"{each.s3_bytes / MB:,.0f}",
            "" if each.hit_ratio is None else f"{each.hit_ratio:.4f}",
            f"{each.saved_bytes / MB:,.0f}",
            f"{each.epoch.seconds:.1f}",
        )
    console.print(table)
    for each in passes:
        if each.misses:
            causes = ", ".join(f"{cause} {count:,}" for cause, count in each.misses.items())
            console.print(f"{each.name}: misses by cause: {causes}")


def plot_passes(passes: Sequence[Pass], path: Path) -> Path:
    """Draw samples a second and S3 requests of every pass."""
    names = [each.name.replace(", ", ",\n") for each in passes]
    rates = [each.samples_per_s for each in passes]
    requests = [float(each.s3_requests) for each in passes]
    return plots.plot_passes(names, rates, requests, path)
