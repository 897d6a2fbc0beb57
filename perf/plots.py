"""PNG plots of results: bars against their targets, hit ratios by share, and the passes of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: there is no display

from matplotlib import pyplot
from matplotlib.axes import Axes

from perf.harness import Bar, Facts
from perf.results import CaseResult

DPI = 120
OURS, MISSED, REFERENCE = "#1f77b4", "#d62728", "#b0b0b0"
LINES = {  # of the hit ratio plots: a policy has one colour, in the store as a line, simulated dashed
    "resident": "k:",
    "epoch": "o-C0",
    "lru": "o-C1",
    "s3fifo": "o-C2",
    "simulated keep": "--C0",
    "simulated LRU": "--C1",
    "simulated S3-FIFO": "--C2",
    "simulated FIFO": "--C4",
    "simulated Belady": "--C7",
}


def plot_run(cases: Sequence[CaseResult], folder: Path) -> list[Path]:
    """Draw what the run holds; returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    plots = []
    bars = [bar for case in cases for bar in case.bars if bar.ratio > 0]
    margins = [(bar, bar.margin) for bar in bars if bar.margin is not None]
    if margins:
        plots.append(_plot_margins(margins, folder / "bars.png"))
    plots += [
        _plot_hit_ratio(case, folder / f"{case.name}.png") for case in cases if "hit_ratio" in case.facts
    ]
    return plots


def _plot_margins(bars: Sequence[tuple[Bar, float]], path: Path) -> Path:
    """Each ratio as a multiple of its target, so that 1 is the line to reach; right of it is better."""
    _, axes = pyplot.subplots(figsize=(9, 0.4 * len(bars) + 1.2), layout="constrained")
    margins = [margin for _, margin in bars]
    colours = [OURS if bar.met else MISSED for bar, _ in bars]
    positions = range(len(bars))
    axes.barh(positions, margins, color=colours)
    axes.set_yticks(positions, [bar.name for bar, _ in bars])
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(left=min(0.5, *margins) * 0.9)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlabel("margin over the target (1 = just met)")
    return _save(path)


def _plot_hit_ratio(case: CaseResult, path: Path) -> Path:
    rows: list[Facts] = case.facts["hit_ratio"]
    _, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    shares = [row["quota_share"] for row in rows]
    for name, line in LINES.items():
        if name in rows[0]:
            axes.plot(shares, [row[name] for row in rows], line, label=name)
    axes.set_xlabel("quota / data set bytes")
    axes.set_ylabel("hit ratio")
    axes.set_title(case.title, fontsize="medium")
    axes.legend(fontsize="small")
    return _save(path)


def plot_passes(names: Sequence[str], rates: Sequence[float], requests: Sequence[float], path: Path) -> Path:
    """Draw the demo's passes: samples a second and S3 requests, side by side."""
    _, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    _columns(left, names, rates, "samples/s (higher is better)")
    _columns(right, names, requests, "S3 requests, counted by the proxy (lower is better)")
    return _save(path)


def _columns(axes: Axes, names: Sequence[str], figures: Sequence[float], title: str) -> None:
    columns = axes.bar(range(len(names)), figures, color=[REFERENCE, *[OURS] * (len(names) - 1)])
    axes.bar_label(columns, [f"{figure:,.0f}" for figure in figures])
    axes.set_xticks(range(len(names)), names)
    axes.set_title(title, fontsize="medium")


def _save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyplot.savefig(path, dpi=DPI)
    pyplot.close()
    return path
