"""Programs that are asked to end by a signal: those that do, and those that do not."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# Says that it runs, notes that it was asked, and ends when that is allowed.
ASKED = """
import sys, threading
from forebay.cli import interrupt
interrupt._SAME_WISH_S, interrupt._END_WAIT_S = 0.0, float(sys.argv[1])
asked, left = threading.Event(), threading.Event()
def ask():
    asked.set()
    if sys.argv[2] == "prompt":
        left.wait()
def work():
    with interrupt.asked_to_end_if_interrupted(ask):
        print("runs", flush=True)
        asked.wait()
        print("asked", flush=True)
        if sys.argv[2] == "deaf":
            threading.Event().wait()
    left.set()
    return 7
sys.exit(interrupt.run_as_program(work))
"""


def run(end_wait_s: float, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", ASKED, str(end_wait_s), how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "runs\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_that_ends_when_asked_ends_with_its_own_code(number: signal.Signals) -> None:
    with run(60, "willing") as process:
        process.send_signal(number)
        assert process.communicate(timeout=60) == ("asked\n", "")
    assert process.returncode == 7


def test_one_that_has_ended_before_the_asking_is_over_ends_with_its_own_code() -> None:
    with run(60, "prompt") as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60) == ("asked\n", "")
    assert process.returncode == 7


def test_a_second_signal_ends_it_at_once() -> None:
    with run(60, "deaf") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "forebay: interrupted\n")
    assert process.returncode == 130


def test_one_that_does_not_end_is_ended() -> None:
    with run(0.1, "deaf") as process:
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60) == ("asked\n", "forebay: terminated\n")
    assert process.returncode == 143


# Fails as soon as what it works on is taken away from it, before the program is over.
FAILS = """
import sys, threading
from forebay.cli import interrupt
taken = threading.Event()
failing = threading.Event()
def undo():
    taken.set()
    failing.wait(0.2)
def work():
    with interrupt.undone_if_interrupted(undo):
        print("runs", flush=True)
        taken.wait()
        interrupt.say_nothing_if_undone()
        print("what it worked on is gone", flush=True)
        failing.set()
    return 1
sys.exit(interrupt.run_as_program(work))
"""


def test_what_fails_because_it_is_undone_is_not_told() -> None:
    command = [sys.executable, "-c", FAILS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == ("", "forebay: interrupted\n")
    assert process.returncode == 130
