"""Text for people and for programs: sizes, times, tables, JSON, and names that may hold anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click

from forebay.clock import NS_PER_S

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


def time_text(mtime_ns: int) -> str:
    """Return a time in UTC to the second, "-" where there is none."""
    if not mtime_ns:
        return "-"
    return datetime.fromtimestamp(mtime_ns // NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S")


def echo_json(value: Any) -> None:
    """Print a value as indented JSON, in ASCII."""
    click.echo(json.dumps(value, indent=2))


def echo_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: drawn on a terminal, elsewhere plain lines with tabs and no headings.

    Cells are escaped.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=box.SIMPLE_HEAD)
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)
