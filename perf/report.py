"""Tables of ratios: on the terminal with rich, and in the README between two markers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from perf.harness import Bar, Facts
from perf.results import CaseResult, Standing

BEGIN = "<!-- perf table: begin -->"
END = "<!-- perf table: end -->"
SIGNS = {"at least": ">=", "at most": "<="}
VERDICTS = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}
MARKDOWN_VERDICTS = {True: "met", False: "**missed**", None: ""}
PLAIN_WIDTH = 140
SUFFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def console() -> Console:
    """Make a console on which the tables have room, also where there is no terminal to ask for its width."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=PLAIN_WIDTH)


def print_case(console: Console, case: CaseResult) -> None:
    """Show the figures of a case and its bars."""
    if case.samples:
        table = Table(title=case.title, title_justify="left", box=box.SIMPLE_HEAD)
        for heading in ("contender", f"median ({case.unit})", "lowest", "highest"):
            table.add_column(heading, justify="left" if heading == "contender" else "right")
        for name, figures in case.samples.items():
            table.add_row(name, *map(short, (statistics.median(figures), min(figures), max(figures))))
        console.print(table)
    for name, fact in case.facts.items():
        _print_fact(console, name, fact)
    console.print(bars_table(case.bars))


def bars_table(bars: Sequence[Bar]) -> Table:
    """Make the table of ratios with their targets."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("ratio of")
    for heading in ("median", "quartiles", "target"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for bar in bars:
        table.add_row(bar.name, f"{bar.ratio:.3g}", _spread(bar), _target(bar), VERDICTS[bar.met])
    return table


def rewrite_readme(path: Path, standings: dict[str, Standing]) -> None:
    """Replace what stands between the two markers by the table of the newest results.

    Raises: ValueError (the markers are not there, or not once each in this order).
    """
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{path}: expected one {BEGIN} and after it one {END}")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    path.write_text(f"{head}{BEGIN}\n{markdown(standings)}\n{END}{tail}")


def markdown(standings: dict[str, Standing]) -> str:
    """Make the README's table: a row a bar, ratio and quartiles beside the target."""
    lines = ["| ratio of | median | quartiles | target | |", "|---|---|---|---|---|"]
    for standing in standings.values():
        for bar in standing.case.bars:
            name = bar.name.replace("|", "\\|")
            figures = f"{bar.ratio:.3g} | {_spread(bar)} | {_target(bar)}"
            lines.append(f"| {name} | {figures} | {MARKDOWN_VERDICTS[bar.met]} |")
    sources = {standing.path.name: standing.machine for standing in standings.values()}
    notes = [f"`perf/results/{name}`: {_machine(machine)}" for name, machine in sorted(sources.items())]
    origin = f"Measured by `make bench` and `make bench-fuse`. {'; '.join(notes)}."
    return "\n".join([*lines, "", origin])


def short(figure: float) -> str:
    """Write a figure with three digits and a suffix."""
    for scale, suffix in SUFFIXES:
        if abs(figure) >= scale:
            return f"{figure / scale:.3g} {suffix}"
    return f"{figure:.3g}"


def _machine(machine: Facts) -> str:
    return f"{machine['date'][:10]}, {machine['cores']} cores {machine['cpu']}, Linux {machine['kernel']}"


def _spread(bar: Bar) -> str:
    lower, upper = bar.spread
    return f"{lower:.3g} to {upper:.3g}"


def _target(bar: Bar) -> str:
    return "none" if bar.target is None else f"{SIGNS[bar.sense]} {bar.target:g}"


def _print_fact(console: Console, name: str, fact: Any) -> None:
    if isinstance(fact, list) and fact and isinstance(fact[0], dict):
        table = Table(title=name, title_justify="left", box=box.SIMPLE_HEAD)
        for heading in fact[0]:
            table.add_column(heading, justify="right")
        for row in fact:
            table.add_row(*(f"{value:.3f}" for value in row.values()))
        console.print(table)
    else:
        console.print(f"  {name}: {short(fact) if isinstance(fact, int | float) else fact}")
