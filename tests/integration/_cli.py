"""Command lines to be run: in this process, or as a program of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from forebay.cli import main

PROGRAM = (sys.executable, "-m", "forebay")
TIMEOUT_S = 60


@dataclass
class Outcome:
    """What a command line came to."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


class Cli:
    """The command line, with a cache directory, tiers and a folder of data set up in the environment.

    data is the folder, whose URI is uri.
    """

    def __init__(self, place: Path, captured: pytest.CaptureFixture[bytes]) -> None:
        self.place = place
        self.data = place / "data"
        self.uri = self.data.as_uri()
        self._captured = captured

    def __call__(self, *arguments: str) -> Outcome:
        """Run a command line in this process."""
        code = main(arguments)
        captured = self._captured.readouterr()
        return Outcome(code, captured.out, captured.err.decode())

    def write(self, name: str, data: bytes) -> None:
        """Write a file into the folder of data."""
        (self.data / name).parent.mkdir(parents=True, exist_ok=True)
        (self.data / name).write_bytes(data)


def program(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command line as a program and wait for it."""
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options
    )


def started(arguments: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """Start a command line as a program, its output in pipes."""
    return subprocess.Popen(
        [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
