"""The command line: the same verbs as in Python. Exit codes: 0 done, 1 something failed, 2 wrong usage."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, that of the process by default, and return the exit code."""
    from forebay.cli.app import run

    return run(arguments)
