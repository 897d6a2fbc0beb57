"""Text for people and for programs: sizes, times, tables, JSON, and names that may hold anything."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import click

from forebay.clock import NS_PER_S

_FIGURE: Final = re.compile(r"[0-9]|-$")
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def printable(text: str) -> str:
    """Return the text with every control character and undecodable byte escaped: a name moves no cursor."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("utf-8", "surrogateescape").decode("latin-1").encode("unicode_escape").decode("ascii")


def size_text(size_bytes: float) -> str:
    """Return a size with the unit that leaves it 1 to 1,023, as ``1.5 GiB``."""
    power = 0
    while size_bytes >= 1024 and power < len(_UNITS) - 1:
        size_bytes /= 1024
        power += 1
    return f"{size_bytes:.{1 if power else 0}f} {_UNITS[power]}"


def share_text(part: float, whole: float) -> str:
    """Return part / whole as ``37.5 %``, "-" where there is no whole."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def time_text(mtime_ns: int) -> str:
    """Return a time in UTC to the second, "-" where there is none or no calendar has it."""
    if not mtime_ns:
        return "-"
    try:
        return datetime.fromtimestamp(mtime_ns // NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):
        return "-"


def echo_json(value: Any) -> None:
    """Print a value as indented JSON, in ASCII."""
    click.echo(json.dumps(value, indent=2))


class JsonArray:
    """A JSON array that is printed item by item, a line each: for as many as there are."""

    def __init__(self) -> None:
        """Begin with no item."""
        self._count = 0

    def add(self, item: Any) -> None:
        """Print one item."""
        click.echo(("[" if self._count == 0 else ",") + f"\n  {json.dumps(item)}", nl=False)
        self._count += 1

    def end(self) -> None:
        """Print the end."""
        click.echo("\n]" if self._count else "[]")


@contextmanager
def json_array() -> Iterator[JsonArray]:
    """Print what is added as one JSON array, which ends whatever happens."""
    array = JsonArray()
    try:
        yield array
    finally:
        array.end()


def echo_lines(rows: Iterable[Sequence[str]]) -> None:
    """Print rows for programs: a line each, tabs between the cells. Cells are escaped."""
    for row in rows:
        click.echo("\t".join(map(printable, row)))


def echo_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a list: a drawn table on a terminal, elsewhere ``echo_lines``."""
    if not sys.stdout.isatty():
        echo_lines(rows)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in row))
    Console().print(table)


def columns(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table to be read by people wherever it goes: headings, columns in line.

    Cells are escaped; columns of figures stand at the right.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    by_column = list(zip(*cells, strict=True)) or [()] * len(headings)
    widths = [max(map(len, (heading, *column))) for heading, column in zip(headings, by_column, strict=True)]
    is_right = [all(_FIGURE.match(cell) for cell in column) for column in by_column]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, is_right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [line(row) for row in (headings, *cells)]
