"""The command line: the same verbs as in Python.

Exit codes: 0 done, 1 something failed, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit code; None: that of the process, as its program."""
    from forebay.cli.interrupt import run_as_program

    def run() -> int:
        from forebay.cli.app import run

        return run(arguments)

    return run_as_program(run) if arguments is None else run()
