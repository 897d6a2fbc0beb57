"""The commands record, trace and whatif."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from tests.faults._child import wait_until
from tests.integration._cli import Cli, program, started

READER = """
import sys, forebay
with forebay.open() as cache:
    for _ in range(2):
        for path in sys.argv[1:]:
            cache.read(path).release()
"""


@pytest.fixture
def reader(tmp_path: Path) -> list[str]:
    """A program that reads the paths it is given, twice."""
    (tmp_path / "reader.py").write_text(READER)
    return [sys.executable, str(tmp_path / "reader.py")]


def test_record_show_replay(attached: Cli, reader: list[str]) -> None:
    outcome = attached("record", "t", "--", *reader, "d/sub/b.bin", "d/a.bin")
    assert outcome.code == 0, outcome.err
    assert outcome.out == b""
    assert outcome.err.splitlines() == [
        "trace t: complete, processes: 1",
        "manifest d@t: 2 objects in order",
    ]
    (line,) = attached("trace", "list").lines
    assert line.split("\t")[:3] == ["t", "complete", "1"]
    shown = attached("trace", "show", "t").text
    assert "accesses  4 in " in shown
    assert "of d" in shown
    accesses = [line.split("\t")[1:] for line in attached("trace", "show", "t", "--accesses").lines]
    assert accesses == [["0", "102400", "102400", "d/sub/b.bin"], ["0", "10", "10", "d/a.bin"]] * 2
    as_json = json.loads(attached("trace", "show", "t", "--accesses", "--json").out)
    assert [each["path"] for each in as_json] == ["d/sub/b.bin", "d/a.bin"] * 2
    assert attached("free", "d").code == 0
    assert attached("load", "d", "--order", "t").code == 0
    assert attached("trace", "delete", "t").text == "deleted t\n"
    assert attached("trace", "list").lines == []


def test_record_ends_as_the_command_does(attached: Cli) -> None:
    failing = [sys.executable, "-c", "import sys; print('said'); sys.exit(7)"]
    outcome = program("record", "t", "--json", "--", *failing)
    assert outcome.returncode == 7
    said, _, told = outcome.stdout.partition("\n")
    assert said == "said"
    assert json.loads(told)["exit_code"] == 7
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    assert program("record", "u", "--", *killed).returncode == 128 + signal.SIGKILL
    assert json.loads(attached("manifest", "list", "d", "--json").out) == []


def test_record_of_what_cannot_be_run_or_named(attached: Cli, reader: list[str]) -> None:
    outcome = attached("record", "t", "--", "/no/such/program")
    assert outcome.code == 1
    assert "/no/such/program: No such file" in outcome.err
    assert attached("record", "a b", "--", *reader).code == 2
    assert attached("record", "t").code == 2
    assert attached("record", "t", "--", *reader).code == 2
    assert attached("record", "v", "--no-manifests", "--max-bytes", "2MiB", "--", *reader).code == 0


def test_an_interrupted_recording_is_kept(attached: Cli, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import sys, time, forebay\n"
        "cache = forebay.open()\n"
        "cache.read('d/a.bin').release()\n"
        "print('read', flush=True)\n"
        "time.sleep(60)\n"
    )
    process = started(["record", "t", "--", sys.executable, str(tmp_path / "slow.py")])
    assert process.stdout is not None
    assert process.stdout.readline() == "read\n"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    # Whether it came to end the trace before it ended itself is chance.
    wait_until(
        lambda: json.loads(attached("trace", "list", "--json").out)[0]["state"] != "recording",
        "the trace is let go of",
    )
    made = json.loads(attached("trace", "manifests", "t", "--json").out)
    assert [each["objects"] for each in made] == [1]
    assert attached("trace", "manifests", "t").code == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["trace", "show", "absent"], 1, "no trace 'absent'"),
        (["trace", "manifests", "absent"], 1, "no trace 'absent'"),
        (["trace", "delete", ".."], 2, "trace name '..'"),
    ],
)
def test_what_goes_wrong(attached: Cli, arguments: list[str], code: int, words: str) -> None:
    outcome = attached(*arguments)
    assert (outcome.code, words in outcome.err) == (code, True), outcome.err
